//! Copies of rows and planes.
//!
//! Each side is in guest memory or on the device. Between two locations on the device, the driver copies in one
//! operation. Otherwise rows are packed into the staging buffer, as many at a time as fit.

use crate::arguments::{Device, Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::driver::{MEMORY_DEVICE, MEMORY_HOST, Memcpy3D, Side3D};
use crate::handles::Handle;
use crate::layout::Fields;
use crate::outcome::{CallResult, fail};

use super::copy::{from_device, refuse_capture, stream_for, to_device};
use super::memory::translate;
use super::stream::Named;

/// One side of a copy in the guest's terms.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// Offset of the first byte.
    start: Option<u64>,
    memory: u32,
    host: Pointer,
    device: Device,
    pitch: u64,
    /// Distance between planes in bytes.
    plane: u64,
}

/// Width in bytes, rows, and planes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    width: u64,
    height: u64,
    depth: u64,
}

impl Extent {
    fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Distance in bytes from the first byte of a side to the end of its last row.
    fn on(self, side: &Side) -> Option<u64> {
        let rows = super::memset::extent(side.pitch, self.width, self.height)?;
        let planes = side.plane.checked_mul(self.depth.checked_sub(1)?)?;
        (self.depth == 1 || rows <= side.plane).then_some(())?;
        planes.checked_add(rows)
    }
}

fn side(call: &Call<'_>, fields: &mut Fields, has_planes: bool) -> CallResult<Side> {
    let x = fields.next(call, Kind::Size)?;
    let y = fields.next(call, Kind::Size)?;
    let (mut z, mut height) = (0, 0);
    if has_planes {
        z = fields.next(call, Kind::Size)?;
        fields.next(call, Kind::Size)?; // The mipmap level of an array.
    }
    let memory = fields.next(call, Kind::Int)? as u32;
    let host = Pointer(fields.next(call, Kind::Pointer)?);
    let device = Device(fields.next(call, Kind::Device)?);
    fields.next(call, Kind::Handle)?; // An array.
    if has_planes {
        fields.next(call, Kind::Pointer)?; // Reserved.
    }
    let pitch = fields.next(call, Kind::Size)?;
    if has_planes {
        height = fields.next(call, Kind::Size)?;
    }
    let plane = pitch.saturating_mul(height);
    let before = |count: u64, size: u64| count.checked_mul(size);
    let start = before(y, pitch)
        .and_then(|rows| rows.checked_add(x))
        .and_then(|rows| rows.checked_add(before(z, plane)?));
    Ok(Side {
        start,
        memory,
        host,
        device,
        pitch,
        plane,
    })
}

/// A copy whose sides are both checked.
#[derive(Debug, Clone, Copy)]
enum Place {
    Host(Pointer),
    Device(Device, u64),
}

fn place(call: &Call<'_>, side: &Side, extent: Extent) -> CallResult<Place> {
    let (Some(start), Some(length)) = (side.start, extent.on(side)) else {
        return fail(Code::INVALID_VALUE);
    };
    match side.memory {
        MEMORY_HOST => {
            let host = side.host.plus(start);
            call.bytes(host, length)?;
            Ok(Place::Host(host))
        }
        MEMORY_DEVICE => {
            let address = side
                .device
                .0
                .checked_add(start)
                .ok_or(Code::INVALID_VALUE)?;
            // The guest may compute an end address that wraps around; the checks here must not.
            let real = translate(call, Device(address), length)?;
            Ok(Place::Device(Device(address), real))
        }
        // Arrays, and addresses of either kind.
        3 | 4 => fail(Code::NOT_SUPPORTED),
        _ => fail(Code::INVALID_VALUE),
    }
}

fn run(call: &mut Call<'_>, from: Side, to: Side, extent: Extent, stream: Handle) -> CallResult {
    call.current()?;
    if extent.is_empty() {
        return Ok(());
    }
    let (source, target) = (place(call, &from, extent)?, place(call, &to, extent)?);
    match (source, target) {
        (Place::Device(guest_from, real_from), Place::Device(guest_to, real_to)) => {
            let named = stream_for(call, &[guest_from, guest_to], stream)?;
            let copy = device_copy((real_from, &from), (real_to, &to), extent);
            let backend = call.backend()?;
            call.make_room(&backend.driver, named.current)?;
            Ok(backend.driver.copy_3d(&copy, named.stream)?)
        }
        (Place::Host(host), Place::Device(guest, real)) => {
            let named = stream_for(call, &[guest], stream)?;
            refuse_capture(call, named.stream)?;
            each_plane(extent, |z| {
                let rows = Rows {
                    host: host.plus(z * from.plane),
                    host_pitch: from.pitch,
                    real: real + z * to.plane,
                    pitch: to.pitch,
                };
                rows.to_device(call, named, extent)
            })
        }
        (Place::Device(guest, real), Place::Host(host)) => {
            let named = stream_for(call, &[guest], stream)?;
            refuse_capture(call, named.stream)?;
            each_plane(extent, |z| {
                let rows = Rows {
                    host: host.plus(z * to.plane),
                    host_pitch: to.pitch,
                    real: real + z * from.plane,
                    pitch: from.pitch,
                };
                rows.copy_from_device(call, named, extent)
            })
        }
        (Place::Host(source), Place::Host(target)) => {
            // Enqueued in the stream, so it runs after earlier operations.
            let named = call.ordered_stream(stream)?;
            refuse_capture(call, named.stream)?;
            let backend = call.backend()?;
            call.wait_stream(&backend.driver, named.stream)?;
            each_plane(extent, |z| {
                for y in 0..extent.height {
                    call.checkpoint()?;
                    let row = call
                        .bytes(source.plus(z * from.plane + y * from.pitch), extent.width)?
                        .to_vec();
                    call.bytes_mut(target.plus(z * to.plane + y * to.pitch), extent.width)?
                        .copy_from_slice(&row);
                }
                Ok(())
            })
        }
    }
}

fn each_plane(extent: Extent, mut plane: impl FnMut(u64) -> CallResult) -> CallResult {
    (0..extent.depth).try_for_each(&mut plane)
}

/// The driver's structure for a copy between two checked locations on the device.
fn device_copy(
    (real_from, from): (u64, &Side),
    (real_to, to): (u64, &Side),
    extent: Extent,
) -> Memcpy3D {
    let side = |real, side: &Side| Side3D {
        memory: MEMORY_DEVICE,
        device: real,
        pitch: side.pitch.max(extent.width) as usize,
        height: (side.plane / side.pitch.max(1)).max(extent.height) as usize,
        ..Side3D::default()
    };
    Memcpy3D {
        from: side(real_from, from),
        to: side(real_to, to),
        width: extent.width as usize,
        height: extent.height as usize,
        depth: extent.depth as usize,
    }
}

/// Rows of one plane on both sides.
struct Rows {
    host: Pointer,
    host_pitch: u64,
    real: u64,
    pitch: u64,
}

impl Rows {
    /// Number of rows that fit into the staging buffer; 0 if one row does not fit.
    fn at_once(call: &Call<'_>, named: Named, extent: Extent) -> u64 {
        let lease = call.state.leases[named.current.device].as_ref();
        let room = lease
            .and_then(|lease| lease.staging.as_ref())
            .map_or(0, |staging| staging.len());
        room as u64 / extent.width
    }

    fn to_device(&self, call: &mut Call<'_>, named: Named, extent: Extent) -> CallResult {
        let at_once = Self::at_once(call, named, extent);
        let width = extent.width as usize;
        let mut y = 0;
        while y < extent.height {
            call.checkpoint()?;
            let (host, real) = (
                self.host.plus(y * self.host_pitch),
                self.real + y * self.pitch,
            );
            if at_once == 0 {
                to_device(call, named, real, host, extent.width)?;
                y += 1;
                continue;
            }
            let rows = at_once.min(extent.height - y);
            let backend = call.backend()?;
            with_staging(call, named, |call, staging| {
                for row in 0..rows {
                    let from = call.bytes(host.plus(row * self.host_pitch), extent.width)?;
                    let at = row as usize * width;
                    staging.part_mut(at..at + width).copy_from_slice(from);
                }
                let target = (real, self.pitch.max(extent.width) as usize);
                backend.driver.copy_rows_to_device(
                    target,
                    staging,
                    (width, rows as usize),
                    named.stream,
                )?;
                call.wait_stream(&backend.driver, named.stream)
            })?;
            y += rows;
        }
        Ok(())
    }

    fn copy_from_device(&self, call: &mut Call<'_>, named: Named, extent: Extent) -> CallResult {
        let at_once = Self::at_once(call, named, extent);
        let width = extent.width as usize;
        let mut y = 0;
        while y < extent.height {
            call.checkpoint()?;
            let (host, real) = (
                self.host.plus(y * self.host_pitch),
                self.real + y * self.pitch,
            );
            if at_once == 0 {
                from_device(call, named, host, real, extent.width)?;
                y += 1;
                continue;
            }
            let rows = at_once.min(extent.height - y);
            let backend = call.backend()?;
            with_staging(call, named, |call, staging| {
                let source = (real, self.pitch.max(extent.width) as usize);
                backend.driver.copy_rows_from_device(
                    staging,
                    source,
                    (width, rows as usize),
                    named.stream,
                )?;
                call.wait_stream(&backend.driver, named.stream)?;
                for row in 0..rows {
                    let at = row as usize * width;
                    let to = call.bytes_mut(host.plus(row * self.host_pitch), extent.width)?;
                    to.copy_from_slice(staging.part(at..at + width));
                }
                Ok(())
            })?;
            y += rows;
        }
        Ok(())
    }
}

/// Lends the staging buffer to `copy` and always returns it to the lease, as the device may still use it.
fn with_staging(
    call: &mut Call<'_>,
    named: Named,
    body: impl FnOnce(&mut Call<'_>, &mut crate::driver::HostBuffer) -> CallResult,
) -> CallResult {
    let lease = call.state.leases[named.current.device].as_mut();
    let Some(mut staging) = lease.and_then(|lease| lease.staging.take()) else {
        return fail(Code::INVALID_CONTEXT);
    };
    let result = body(call, &mut staging);
    if let Some(lease) = call.state.leases[named.current.device].as_mut() {
        lease.staging = Some(staging);
    }
    result
}

/// `cuMemcpy2DAsync_v2`.
pub(crate) fn copy_2d_async(call: &mut Call<'_>, copy: Pointer, stream: Handle) -> CallResult {
    let mut fields = Fields::of(copy);
    let (from, to) = (
        side(call, &mut fields, false)?,
        side(call, &mut fields, false)?,
    );
    let (width, height) = (
        fields.next(call, Kind::Size)?,
        fields.next(call, Kind::Size)?,
    );
    run(
        call,
        from,
        to,
        Extent {
            width,
            height,
            depth: 1,
        },
        stream,
    )
}

/// `cuMemcpy2D_v2` and `cuMemcpy2DUnaligned_v2`.
pub(crate) fn copy_2d(call: &mut Call<'_>, copy: Pointer) -> CallResult {
    copy_2d_async(call, copy, Handle::NULL)
}

/// `cuMemcpy3DAsync_v2`.
pub(crate) fn copy_3d_async(call: &mut Call<'_>, copy: Pointer, stream: Handle) -> CallResult {
    let (from, to, extent) = read_3d(call, copy)?;
    run(call, from, to, extent, stream)
}

/// `cuMemcpy3D_v2`.
pub(crate) fn copy_3d(call: &mut Call<'_>, copy: Pointer) -> CallResult {
    copy_3d_async(call, copy, Handle::NULL)
}

fn read_3d(call: &Call<'_>, copy: Pointer) -> CallResult<(Side, Side, Extent)> {
    let mut fields = Fields::of(copy);
    let (from, to) = (
        side(call, &mut fields, true)?,
        side(call, &mut fields, true)?,
    );
    let extent = Extent {
        width: fields.next(call, Kind::Size)?,
        height: fields.next(call, Kind::Size)?,
        depth: fields.next(call, Kind::Size)?,
    };
    Ok((from, to, extent))
}

/// A copy for a graph node. Both sides must be on the device, as the graph keeps the addresses.
pub(crate) fn node_copy(call: &mut Call<'_>, copy: Pointer) -> CallResult<Memcpy3D> {
    let (from, to, extent) = read_3d(call, copy)?;
    if extent.is_empty() {
        return fail(Code::INVALID_VALUE);
    }
    match (place(call, &from, extent)?, place(call, &to, extent)?) {
        (Place::Device(_, real_from), Place::Device(_, real_to)) => {
            Ok(device_copy((real_from, &from), (real_to, &to), extent))
        }
        _ => fail(Code::STREAM_CAPTURE_UNSUPPORTED),
    }
}
