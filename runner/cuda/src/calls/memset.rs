//! Setting device memory.

use crate::arguments::{Device, Size};
use crate::call::Call;
use crate::code::Code;
use crate::handles::Handle;
use crate::outcome::{CallResult, fail};

use super::copy::stream_for;
use super::memory::translate;

/// The value to fill with.
#[derive(Debug, Clone, Copy)]
enum Element {
    Byte(u8),
    Half(u16),
    Word(u32),
}

impl Element {
    fn size(self) -> u64 {
        match self {
            Self::Byte(_) => 1,
            Self::Half(_) => 2,
            Self::Word(_) => 4,
        }
    }
}

fn row(
    call: &mut Call<'_>,
    to: Device,
    element: Element,
    count: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    let bytes = count
        .0
        .checked_mul(element.size())
        .ok_or(Code::INVALID_VALUE)?;
    if bytes == 0 {
        return Ok(());
    }
    if !to.0.is_multiple_of(element.size()) {
        return fail(Code::INVALID_VALUE);
    }
    let real = translate(call, to, bytes)?;
    let named = stream_for(call, &[to], stream)?;
    let stream = named.stream;
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    let (driver, count) = (&backend.driver, count.0 as usize);
    Ok(match element {
        Element::Byte(value) => driver.memset_8(real, value, count, stream),
        Element::Half(value) => driver.memset_16(real, value, count, stream),
        Element::Word(value) => driver.memset_32(real, value, count, stream),
    }?)
}

/// Total extent in bytes of rows of `width` bytes; `None` if the rows overlap or the sizes are invalid.
pub(crate) fn extent(pitch: u64, width: u64, height: u64) -> Option<u64> {
    let last = pitch.checked_mul(height.checked_sub(1)?)?;
    (height == 1 || width <= pitch).then_some(())?;
    last.checked_add(width)
}

fn rows(
    call: &mut Call<'_>,
    to: Device,
    pitch: Size,
    element: Element,
    width: Size,
    height: Size,
    stream: Handle,
) -> CallResult {
    call.current()?;
    let bytes = width
        .0
        .checked_mul(element.size())
        .ok_or(Code::INVALID_VALUE)?;
    if bytes == 0 || height.0 == 0 {
        return Ok(());
    }
    let aligned = to.0.is_multiple_of(element.size()) && pitch.0.is_multiple_of(element.size());
    let Some(extent) = extent(pitch.0, bytes, height.0).filter(|_| aligned) else {
        return fail(Code::INVALID_VALUE);
    };
    let real = translate(call, to, extent)?;
    let named = stream_for(call, &[to], stream)?;
    let stream = named.stream;
    let backend = call.backend()?;
    call.make_room(&backend.driver, named.current)?;
    let driver = &backend.driver;
    let (pitch, width, height) = (pitch.0 as usize, width.0 as usize, height.0 as usize);
    Ok(match element {
        Element::Byte(value) => driver.memset_2d_8(real, pitch, value, width, height, stream),
        Element::Half(value) => driver.memset_2d_16(real, pitch, value, width, height, stream),
        Element::Word(value) => driver.memset_2d_32(real, pitch, value, width, height, stream),
    }?)
}

macro_rules! sets {
    ($($name:ident, $name_async:ident, $name_2d:ident, $name_2d_async:ident: $make:expr;)*) => {$(
        /// `cuMemsetD*_v2`.
        pub(crate) fn $name(call: &mut Call<'_>, to: Device, value: u32, count: Size) -> CallResult {
            row(call, to, $make(value), count, Handle::NULL)
        }

        /// `cuMemsetD*Async`.
        pub(crate) fn $name_async(call: &mut Call<'_>, to: Device, value: u32, count: Size, stream: Handle) -> CallResult {
            row(call, to, $make(value), count, stream)
        }

        /// `cuMemsetD2D*_v2`.
        pub(crate) fn $name_2d(
            call: &mut Call<'_>,
            to: Device,
            pitch: Size,
            value: u32,
            width: Size,
            height: Size,
        ) -> CallResult {
            rows(call, to, pitch, $make(value), width, height, Handle::NULL)
        }

        /// `cuMemsetD2D*Async`.
        pub(crate) fn $name_2d_async(
            call: &mut Call<'_>,
            to: Device,
            pitch: Size,
            value: u32,
            width: Size,
            height: Size,
            stream: Handle,
        ) -> CallResult {
            rows(call, to, pitch, $make(value), width, height, stream)
        }
    )*};
}
sets! {
    d8, d8_async, d2d8, d2d8_async: |value| Element::Byte(value as u8);
    d16, d16_async, d2d16, d2d16_async: |value| Element::Half(value as u16);
    d32, d32_async, d2d32, d2d32_async: Element::Word;
}
