//! The open driver and its devices in the guest's numbering.

use crate::code::Code;
use crate::driver::{Context, EntryPoints, HostBuffer, Stream, SymbolSource, clear_current};
use crate::settings::Settings;

/// Size of a staging buffer in bytes. Large copies use its halves in turn.
pub(crate) const STAGING_SIZE: usize = 2 << 20;
/// `CU_STREAM_NON_BLOCKING`.
pub(crate) const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`.
pub(crate) const DISABLE_TIMING: u32 = 2;
/// `CU_LIMIT_PRINTF_FIFO_SIZE`. Kernels print to the output of the runner, so the buffer is small.
const PRINTF_LIMIT: u32 = 1;
const PRINTF_SIZE: usize = 64 << 10;

/// Device attributes by the driver's numbers.
pub(crate) mod attribute {
    pub(crate) const MAX_THREADS_PER_BLOCK: u32 = 1;
    pub(crate) const MAX_BLOCK_DIM: [u32; 3] = [2, 3, 4];
    pub(crate) const MAX_GRID_DIM: [u32; 3] = [5, 6, 7];
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK: u32 = 8;
    pub(crate) const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: u32 = 97;
    pub(crate) const COMPUTE_CAPABILITY: [u32; 2] = [75, 76];
}

/// A device of the guest.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// The driver's number.
    pub(crate) number: i32,
    pub(crate) name: String,
    pub(crate) total: u64,
    pub(crate) capability: (i32, i32),
    pub(crate) max_grid: [u32; 3],
    pub(crate) max_block: [u32; 3],
    pub(crate) max_threads: u32,
    pub(crate) max_shared: u32,
}

/// The initialized driver.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) driver: EntryPoints,
    pub(crate) version: i32,
    pub(crate) devices: Vec<Device>,
}

/// A context of the driver with a stream and a staging buffer.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) context: Context,
    pub(crate) stream: Stream,
    pub(crate) staging: HostBuffer,
}

impl Backend {
    /// Initializes the driver and queries its devices.
    ///
    /// # Errors
    ///
    /// The driver's code, and a message that says which step failed.
    pub(crate) fn open(
        source: &dyn SymbolSource,
        settings: &Settings,
    ) -> Result<Self, (Code, String)> {
        let driver = EntryPoints::load(source);
        let doing = |what: &'static str| move |code: Code| (code, format!("{what}: {code}"));
        driver.init(0).map_err(doing("cuInit"))?;
        let version = driver
            .driver_version()
            .map_err(doing("cuDriverGetVersion"))?;
        let count = driver.device_count().map_err(doing("cuDeviceGetCount"))?;
        let count = u32::try_from(count).unwrap_or(0);
        let ordinals = settings
            .devices
            .clone()
            .unwrap_or_else(|| (0..count).collect());
        if let Some(missing) = ordinals.iter().find(|ordinal| **ordinal >= count) {
            let message =
                format!("cuda_devices names device {missing}, but the driver has {count}");
            return Err((Code::INVALID_DEVICE, message));
        }
        if ordinals.is_empty() {
            return Err((Code::NO_DEVICE, "the driver has no device".to_owned()));
        }
        let devices = ordinals
            .into_iter()
            .map(|ordinal| Device::look_at(&driver, ordinal as i32))
            .collect::<Result<_, _>>()
            .map_err(doing("querying a device"))?;
        Ok(Self {
            driver,
            version,
            devices,
        })
    }

    /// Creates a context. No context is current on the thread afterward.
    pub(crate) fn prepare(&self, device: usize) -> Result<Prepared, Code> {
        let device = self.devices.get(device).ok_or(Code::INVALID_DEVICE)?;
        let context = self.driver.context_create(0, device.number)?;
        // Not essential: continue with a driver that does not support the limit.
        let _ = self.driver.context_set_limit(PRINTF_LIMIT, PRINTF_SIZE);
        let equipped = self.equip();
        clear_current(&self.driver);
        match equipped {
            Ok((stream, staging)) => Ok(Prepared {
                context,
                stream,
                staging,
            }),
            Err(code) => {
                // Destroying the context destroys everything in it.
                let _ = self.driver.context_destroy(context);
                Err(code)
            }
        }
    }

    /// Creates a stream and a staging buffer in the current context.
    pub(crate) fn equip(&self) -> Result<(Stream, HostBuffer), Code> {
        let stream = self.driver.stream_create(NON_BLOCKING, 0)?;
        match self.driver.host_buffer(STAGING_SIZE) {
            Ok(staging) => Ok((stream, staging)),
            Err(code) => {
                let _ = self.driver.stream_destroy(stream);
                Err(code)
            }
        }
    }
}

impl Device {
    fn look_at(driver: &EntryPoints, ordinal: i32) -> Result<Self, Code> {
        let number = driver.device(ordinal)?;
        let attribute = |attribute| driver.device_attribute(attribute, number);
        // If an old driver does not know an attribute, there is no limit.
        let limit = |number| match attribute(number) {
            Ok(value) => u32::try_from(value).unwrap_or(0),
            Err(_) => u32::MAX,
        };
        let shared = limit(attribute::MAX_SHARED_MEMORY_PER_BLOCK);
        let opt_in = match attribute(attribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) {
            Ok(value) => u32::try_from(value).unwrap_or(0),
            Err(_) => 0,
        };
        let [major, minor] = attribute::COMPUTE_CAPABILITY;
        Ok(Self {
            number,
            name: driver.device_name(number)?,
            total: driver.device_total(number)? as u64,
            capability: (attribute(major)?, attribute(minor)?),
            max_grid: attribute::MAX_GRID_DIM.map(limit),
            max_block: attribute::MAX_BLOCK_DIM.map(limit),
            max_threads: limit(attribute::MAX_THREADS_PER_BLOCK),
            max_shared: shared.max(opt_in),
        })
    }
}
