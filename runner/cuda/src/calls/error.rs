//! Names and texts of codes. These calls also work without a driver and after a fault.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::code::Code;
use crate::outcome::{CallResult, fail};

fn give(
    call: &mut Call<'_>,
    code: u32,
    pointer: Pointer,
    which: impl Fn(&(Code, String, &str)) -> String,
) -> CallResult {
    let out = call.out(pointer, Kind::Pointer)?;
    let known = Code::all().find(|(known, ..)| known.0 == code);
    let strings = &mut call.state.guest_strings;
    let address = match known {
        Some(entry) => strings.of_code(call.host, &which(&entry)),
        None => {
            let backend = call.state.backend.as_ref();
            match backend.and_then(|backend| backend.driver.error_name(Code(code))) {
                Some(name) => strings.of(call.host, &name),
                None => fail(Code::INVALID_VALUE),
            }
        }
    };
    match address {
        Ok(address) => call.store(out, address),
        Err(failure) => {
            call.store(out, 0)?;
            Err(failure)
        }
    }
}

/// `cuGetErrorName`.
pub(crate) fn error_name(call: &mut Call<'_>, code: u32, pointer: Pointer) -> CallResult {
    give(call, code, pointer, |(_, name, _)| name.clone())
}

/// `cuGetErrorString`.
pub(crate) fn error_string(call: &mut Call<'_>, code: u32, pointer: Pointer) -> CallResult {
    give(call, code, pointer, |(_, _, text)| (*text).to_owned())
}
