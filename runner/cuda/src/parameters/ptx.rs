//! Parameters from PTX text: the list of the `.entry`, and how the kernel uses their values.
//!
//! An 8-byte parameter is a pointer if it is marked as one (`.ptr`), or if its value is converted to an address
//! (`cvta.to`) or is the base of an access. It is a number if the kernel uses it in arithmetic that is meaningless for
//! addresses. If it is only added, moved, stored, or passed on, it is unknown, as a byte offset is also added to
//! addresses.

use std::collections::{HashMap, HashSet};

use super::{Layout, MOST, Parameter, Role};

/// Removes comments from text.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, comment) = rest.split_at(at);
        plain.push_str(before);
        plain.push(' ');
        rest = if comment.starts_with("//") {
            &comment[comment.find('\n').unwrap_or(comment.len())..]
        } else if let Some(inside) = comment.strip_prefix("/*") {
            inside.find("*/").map_or("", |end| &inside[end + 2..])
        } else {
            &comment[1..]
        };
    }
    plain.push_str(rest);
    plain
}

/// The parameter list and the body of a kernel.
fn entry<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut rest = text;
    loop {
        rest = &rest[rest.find(".entry")? + ".entry".len()..];
        // Stop at the next entry: searching to the end of the text for each entry would take quadratic time.
        let end = rest.find(".entry").unwrap_or(rest.len());
        let Some(head) = rest[..end].trim_start().strip_prefix(name) else {
            continue;
        };
        if !head.starts_with(|c: char| c.is_whitespace() || matches!(c, '(' | '{' | ';')) {
            continue;
        }
        let head = head.trim_start();
        let (parameters, head) = match head.strip_prefix('(') {
            Some(list) => match list.split_once(')') {
                Some(split) => split,
                None => continue,
            },
            None => ("", head),
        };
        let Some(open) = head
            .find(['{', ';'])
            .filter(|at| head[*at..].starts_with('{'))
        else {
            continue; // A declaration without a body.
        };
        let own = &rest[end - head.len() + open..];
        let mut depth = 0usize;
        let close = own.char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(at)
        });
        return Some((parameters, &own[1..close.unwrap_or(own.len())]));
    }
}

struct Declared<'a> {
    name: &'a str,
    parameter: Parameter,
}

/// Size of a type.
fn size_of(ty: &str) -> Option<usize> {
    let bits: usize = match ty.as_bytes().first()? {
        b'u' | b's' | b'b' | b'f' => ty[1..].parse().ok()?,
        _ => return None,
    };
    matches!(bits, 8 | 16 | 32 | 64 | 128).then_some(bits / 8)
}

fn declared(list: &str) -> Option<Vec<Declared<'_>>> {
    let mut parameters = Vec::new();
    let mut at = 0usize;
    for text in list
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let mut words = text.split_whitespace().peekable();
        let (mut size, mut float, mut pointer) = (None, false, false);
        let mut alignment = None;
        let mut name = "";
        while let Some(word) = words.next() {
            match word {
                ".param" => {}
                ".ptr" => pointer = true,
                // After `.ptr`, the alignment is that of the pointed-to data.
                ".align" => {
                    let given: usize = words.next()?.parse().ok()?;
                    if !pointer {
                        alignment = Some(given);
                    }
                }
                ".global" | ".const" | ".local" | ".shared" => {}
                _ => match word.strip_prefix('.') {
                    Some(ty) => {
                        size = Some(size_of(ty)?);
                        float = ty.starts_with('f');
                    }
                    None => name = word,
                },
            }
        }
        let element = size?;
        let (name, count) = match name.split_once('[') {
            Some((name, count)) => (name, count.strip_suffix(']')?.trim().parse::<usize>().ok()?),
            None => (name, 1),
        };
        let alignment = alignment.unwrap_or(element);
        if name.is_empty() || !alignment.is_power_of_two() || parameters.len() == MOST {
            return None;
        }
        at = at.checked_next_multiple_of(alignment)?;
        let size = element.checked_mul(count)?;
        let role = match (size, pointer, float) {
            (8, true, _) => Role::Pointer,
            // An 8-byte array is a structure, not a pointer.
            (8, false, false) if element == 8 => Role::Unknown,
            _ => Role::Value,
        };
        parameters.push(Declared {
            name,
            parameter: Parameter {
                offset: at,
                size,
                role,
            },
        });
        at = at.checked_add(size)?;
    }
    Some(parameters)
}

/// Names in an operand: registers and symbols.
fn base(operand: &str) -> &str {
    let inside = operand.trim().trim_start_matches('[').trim_end_matches(']');
    inside.split(['+', ' ']).next().unwrap_or_default().trim()
}

/// The roles of parameters, by name, according to a kernel's code.
fn uses(body: &str) -> (HashSet<&str>, HashSet<&str>) {
    let instructions: Vec<(Vec<&str>, Vec<&str>)> = body
        .split([';', '{', '}'])
        .filter_map(|text| {
            // Skip labels and guards.
            let text = text.rsplit_once(':').map_or(text, |(_, text)| text).trim();
            let text = match text.strip_prefix('@') {
                Some(guarded) => guarded.split_once(char::is_whitespace)?.1.trim(),
                None => text,
            };
            if text.is_empty() || text.starts_with('.') {
                return None;
            }
            let (operation, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            Some((
                operation.split('.').collect(),
                operands.split(',').map(str::trim).collect(),
            ))
        })
        .collect();
    let mut written: HashMap<&str, u32> = HashMap::new();
    for (operation, operands) in &instructions {
        if !matches!(operation[0], "st" | "red" | "bra" | "bar" | "call") {
            *written.entry(base(operands[0])).or_default() += 1;
        }
    }
    // Registers that hold the unchanged value of a parameter. A register that is written twice could hold any value.
    let mut holds: HashMap<&str, &str> = HashMap::new();
    let (mut pointers, mut values) = (HashSet::new(), HashSet::new());
    // Two passes, for values that are moved in the text before the instruction that loads them.
    for _ in 0..2 {
        for (operation, operands) in &instructions {
            let once = written.get(base(operands[0])) == Some(&1);
            let wide = operation
                .last()
                .is_some_and(|ty| matches!(*ty, "u64" | "s64" | "b64"));
            match operation[0] {
                "ld" if operation.get(1) == Some(&"param") => {
                    let whole = operands
                        .get(1)
                        .is_some_and(|operand| !operand.contains('+') || operand.contains("+0]"));
                    if once && wide && whole {
                        holds.insert(operands[0], base(operands[1]));
                    }
                }
                "mov" if once && wide => {
                    if let Some(source) = operands.get(1).and_then(|source| holds.get(source)) {
                        holds.insert(operands[0], *source);
                    }
                }
                "cvta" => {
                    let source = operands.get(1).and_then(|source| holds.get(source));
                    if let Some(source) = source.filter(|_| operation.get(1) == Some(&"to")) {
                        pointers.insert(*source);
                    }
                }
                "ld" | "st" | "atom" | "red" if !operation.contains(&"param") => {
                    let accessed = operands.iter().find(|operand| operand.starts_with('['));
                    if let Some(source) = accessed.and_then(|accessed| holds.get(base(accessed))) {
                        pointers.insert(*source);
                    }
                }
                "mul" | "mad" | "div" | "rem" | "shl" | "shr" | "cvt" | "setp" => {
                    let sources = operands
                        .iter()
                        .skip(1)
                        .filter_map(|operand| holds.get(operand));
                    values.extend(sources.copied());
                }
                _ => {}
            }
        }
    }
    (pointers, values)
}

/// The parameters of a kernel.
pub(super) fn layout(text: &str, kernel: &str) -> Option<Layout> {
    let text = without_comments(text);
    let (list, body) = entry(&text, kernel)?;
    let mut parameters = declared(list)?;
    if parameters
        .iter()
        .any(|declared| declared.parameter.role == Role::Unknown)
    {
        let (pointers, values) = uses(body);
        for declared in parameters
            .iter_mut()
            .filter(|declared| declared.parameter.role == Role::Unknown)
        {
            declared.parameter.role = match (
                pointers.contains(declared.name),
                values.contains(declared.name),
            ) {
                (true, _) => Role::Pointer,
                (false, true) => Role::Value,
                (false, false) => Role::Unknown,
            };
        }
    }
    Layout::new(
        parameters
            .into_iter()
            .map(|declared| declared.parameter)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::Role::*;
    use super::*;
    use proptest::prelude::*;

    fn roles(text: &str, kernel: &str) -> Vec<Role> {
        let layout = layout(text, kernel).expect("a layout");
        layout
            .parameters
            .iter()
            .map(|parameter| parameter.role)
            .collect()
    }

    const MARKED: &str = "
        .version 7.5 .target sm_75 .address_size 64
        .visible .entry sp(.param .u64 .ptr .global .align 4 p0, .param .u64 .ptr .align 1 p1, .param .u64 p2,
            .param .align 8 .b8 p3[24], .param .u8 p4, .param .u16 p5, .param .f64 p6)
        { .reg .b64 %rd<12>; ld.param.u64 %rd3,[p2]; shl.b64 %rd4,%rd3,2; ret; }";

    #[test]
    fn the_list_gives_layout_and_marked_pointers() {
        let layout = layout(MARKED, "sp").unwrap();
        let offsets: Vec<_> = layout
            .parameters
            .iter()
            .map(|p| (p.offset, p.size))
            .collect();
        assert_eq!(
            offsets,
            [(0, 8), (8, 8), (16, 8), (24, 24), (48, 1), (50, 2), (56, 8)]
        );
        assert_eq!(
            roles(MARKED, "sp"),
            [Pointer, Pointer, Value, Value, Value, Value, Value]
        );
        assert_eq!(layout.size, 64);
        assert_eq!(super::layout(MARKED, "s"), None);
    }

    /// In the form that nvcc writes: no parameter is marked.
    const FLOW: &str = "
        // .entry fake(.param .u64 a)
        .visible .entry k(
            .param .u64 k_param_0, /* a */ .param .u64 k_param_1,
            .param .u64 k_param_2, .param .u64 k_param_3, .param .u64 k_param_4, .param .u32 k_param_5
        ) .maxntid 256, 1, 1
        {
            .reg .b64 %rd<20>;
            ld.param.u64 %rd1, [k_param_0];
            ld.param.u64 %rd2, [k_param_1];
            ld.param.u64 %rd3, [k_param_2];
            ld.param.u64 %rd4, [k_param_3];
            ld.param.u64 %rd5, [k_param_4];
            cvta.to.global.u64 %rd6, %rd1;
            add.s64 %rd7, %rd6, %rd2;
            ld.global.f32 %f1, [%rd7];
            { .param .b64 param0; st.param.b64 [param0+0], %rd3; call.uni helper, (param0); }
            @%p1 bra $L1;
            mul.lo.s64 %rd8, %rd4, 4;
            $L1: st.global.u64 [%rd6], %rd5;
            ret;
        }";

    #[test]
    fn what_may_be_either_stays_unknown() {
        // A pointer, a byte offset that is added to it, a pointer that is only passed on, a number, a pointer that is
        // only stored, and a word.
        assert_eq!(
            roles(FLOW, "k"),
            [Pointer, Unknown, Unknown, Value, Unknown, Value]
        );
    }

    #[test]
    fn a_register_with_two_values_tells_nothing() {
        let text = ".entry k(.param .u64 a, .param .u64 b) {
            ld.param.u64 %rd1, [a]; @%p1 mov.u64 %rd1, 0; ld.global.u32 %r1, [%rd1];
            ld.param.u64 %rd2, [b]; mov.b64 %rd3, %rd2; st.global.u32 [%rd3+4], %r1; }";
        assert_eq!(roles(text, "k"), [Unknown, Pointer]);
    }

    #[test]
    fn long_texts_take_no_longer_than_they_are_long() {
        // Searching to the end of the text for each entry would take minutes.
        for entry in [
            ".entry",
            ".entry k;",
            ".entry k(.param .u64 a)\n",
            ".entry k(",
            ".entry k ",
        ] {
            for end in ["", ";", ")", ") {"] {
                let text = entry.repeat((1 << 20) / entry.len()) + end;
                let _ = layout(&text, "k");
            }
        }
        // A copy of the name for each register that holds it would need 64 GiB.
        let name = "n".repeat(1 << 20);
        let mut text = format!(".entry k(.param .u64 {name}) {{ ld.param.u64 %r0, [{name}];");
        for register in 1..1 << 16 {
            text += &format!("mov.u64 %r{register}, %r{};", register - 1);
        }
        assert_eq!(roles(&(text + "}"), "k"), [Unknown]);
    }

    #[test]
    fn kernels_without_parameters_have_an_empty_layout() {
        assert_eq!(layout(".entry k { ret; }", "k"), Some(Layout::default()));
        assert_eq!(layout(".entry k() { ret; }", "k"), Some(Layout::default()));
        assert_eq!(layout(".extern .entry k(.param .u64 a);", "k"), None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..FLOW.len(), cut in 0usize..FLOW.len(), c in any::<char>()) {
            let mut text = FLOW.to_owned();
            text.insert(at, c);
            let cut = (0..=cut.min(text.len())).rev().find(|cut| text.is_char_boundary(*cut)).unwrap_or(0);
            let _ = layout(&text[cut..], "k");
            let _ = layout(&text[..cut], "k");
        }
    }
}
