//! Devices.

use crate::abi::{Code, Out};
use crate::driver::Call;
use crate::entry::entries;

const NAME: &str = "Fake CUDA Device";

/// `CU_DEVICE_ATTRIBUTE_MAX`: larger numbers are not attributes.
const ATTRIBUTE_LIMIT: i32 = 150;

pub(super) const MAX_THREADS: u32 = 1024;
pub(super) const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub(super) const MAX_GRID: [u32; 3] = [2_147_483_647, 65_535, 65_535];
pub(super) const MAX_SHARED: u32 = 48 << 10;
pub(super) const MAX_SHARED_OPT_IN: u32 = 227 << 10;
pub(super) const MULTIPROCESSORS: i32 = 132;
pub(super) const THREADS_PER_MULTIPROCESSOR: u32 = 2048;
pub(super) const BLOCKS_PER_MULTIPROCESSOR: u32 = 32;

/// Attributes that are not 0, with the values of a large device of compute capability 9.0.
const ATTRIBUTES: [(i32, i32); 40] = [
    (1, MAX_THREADS as i32),
    (2, MAX_BLOCK[0] as i32),
    (3, MAX_BLOCK[1] as i32),
    (4, MAX_BLOCK[2] as i32),
    (5, MAX_GRID[0] as i32),
    (6, MAX_GRID[1] as i32),
    (7, MAX_GRID[2] as i32),
    (8, MAX_SHARED as i32),
    (9, 65_536),
    (10, 32),
    (11, i32::MAX),
    (12, 65_536),
    (13, 1_785_000),
    (14, 512),
    (15, 1),
    (16, MULTIPROCESSORS),
    (19, 1),
    (31, 1),
    (32, 1),
    (33, 0),
    (36, 2_619_000),
    (37, 5_120),
    (38, 50 << 20),
    (39, THREADS_PER_MULTIPROCESSOR as i32),
    (40, 3),
    (41, 1),
    (78, 1),
    (79, 1),
    (80, 1),
    (81, 228 << 10),
    (82, 65_536),
    (83, 1),
    (90, 1),
    (95, 1),
    (97, MAX_SHARED_OPT_IN as i32),
    (102, 1),
    (106, BLOCKS_PER_MULTIPROCESSOR as i32),
    (111, 1024),
    (115, 1),
    (120, 1),
];

/// Memory size of one device.
pub(super) fn total(call: &mut Call<'_>) -> u64 {
    call.driver().settings.memory
}

fn uuid(device: usize) -> [u8; 16] {
    let mut uuid = *b"faas fake cuda \0";
    uuid[15] = device as u8;
    uuid
}

entries! {
    fn cuDeviceGetCount(count: Out<i32>) |call| {
        count.required()?.put(call.driver().devices.len() as i32);
        Ok(())
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) |call| {
        let out = device.required()?;
        call.driver().device(ordinal)?;
        out.put(ordinal);
        Ok(())
    }

    fn cuDeviceGetName(name: Out<u8>, length: i32, device: i32) |call| {
        let name = name.required()?;
        let ordinal = call.driver().device(device)?;
        let length = usize::try_from(length).ok().filter(|length| *length > 0);
        let length = length.ok_or(Code::INVALID_VALUE)?;
        let text = format!("{NAME} {ordinal}");
        let shown = text.len().min(length - 1);
        for (index, byte) in text.bytes().take(shown).enumerate() {
            name.put_at(index, byte);
        }
        name.put_at(shown, 0);
        Ok(())
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) |call| {
        let out = value.required()?;
        let driver = call.driver();
        driver.device(device)?;
        if !(1..ATTRIBUTE_LIMIT).contains(&attribute) {
            return Err(Code::INVALID_VALUE);
        }
        let (major, minor) = driver.settings.capability;
        let fixed = ATTRIBUTES.iter().find(|(key, _)| *key == attribute);
        out.put(match attribute {
            34 => device,
            75 => major,
            76 => minor,
            _ => fixed.map_or(0, |(_, value)| *value),
        });
        Ok(())
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) |call| {
        let out = bytes.required()?;
        call.driver().device(device)?;
        out.put(total(call) as usize);
        Ok(())
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) |call| {
        let (major, minor) = (major.required()?, minor.required()?);
        let driver = call.driver();
        driver.device(device)?;
        major.put(driver.settings.capability.0);
        minor.put(driver.settings.capability.1);
        Ok(())
    }

    fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: i32) |call| {
        let out = out.required()?;
        out.put(uuid(call.driver().device(device)?));
        Ok(())
    }

    fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: i32) |call| {
        let out = out.required()?;
        out.put(uuid(call.driver().device(device)?));
        Ok(())
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) |call| {
        let out = can.required()?;
        call.driver().device(device)?;
        call.driver().device(peer)?;
        out.put(0);
        Ok(())
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<u64>, device: i32) |call| {
        let out = pool.required()?;
        let device = call.driver().device(device)?;
        out.put(call.driver().devices[device].default_pool);
        Ok(())
    }

    fn cuDeviceGetMemPool(pool: Out<u64>, device: i32) |call| {
        let out = pool.required()?;
        let device = call.driver().device(device)?;
        out.put(call.driver().devices[device].pool);
        Ok(())
    }

    fn cuDeviceSetMemPool(device: i32, pool: u64) |call| {
        let device = call.driver().device(device)?;
        call.driver().check(pool, |driver| &driver.pools)?;
        call.driver().devices[device].pool = pool;
        Ok(())
    }
}
