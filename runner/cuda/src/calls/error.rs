//! Names and texts of codes. They work without a driver, and after a fault.

use crate::arguments::{Kind, Pointer};
use crate::call::{Call, Outcome, fail};
use crate::code::Code;

fn give(
    call: &mut Call<'_>,
    code: u32,
    pointer: Pointer,
    which: impl Fn(&(Code, String, &str)) -> String,
) -> Outcome {
    let out = call.out(pointer, Kind::Pointer)?;
    let known = Code::all().find(|(known, ..)| known.0 == code);
    let address = match known {
        Some(entry) => call.code_string(&which(&entry)),
        None => {
            let backend = call.state.backend.clone();
            match backend.and_then(|backend| backend.driver.error_name(Code(code))) {
                Some(name) => call.string_at(&name),
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
pub(crate) fn error_name(call: &mut Call<'_>, code: u32, pointer: Pointer) -> Outcome {
    give(call, code, pointer, |(_, name, _)| name.clone())
}

/// `cuGetErrorString`.
pub(crate) fn error_string(call: &mut Call<'_>, code: u32, pointer: Pointer) -> Outcome {
    give(call, code, pointer, |(_, _, text)| (*text).to_owned())
}
