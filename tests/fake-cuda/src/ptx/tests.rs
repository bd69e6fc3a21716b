//! Tests of the parser: accepted input, refused input, and that no input makes it panic.

use proptest::prelude::*;

use super::{Reason, parse};
use crate::exec::fuzz;

const HEAD: &str = ".version 7.5\n.target sm_75, debug\n.address_size 64\n";

/// A text that uses many features, in the style of compilers.
const TEXT: &str = r#"
// a comment
.version 8.0
.target sm_80
.address_size 64
.file 1 "x.cu"
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.extern .shared .align 16 .b8 dyn[];
.visible .global .align 4 .u32 counter = 5;
.visible .const .align 4 .b8 table[8] = {0, 0, 128, 63, 0, 0, 0, 64};
.global .align 8 .f64 numbers[2][2] = {{1.5, -2.0}, {0d3FF0000000000000, 4.0}};
.visible .func (.param .b32 func_retval0) helper(.param .b64 p0, .param .b32 p1)
{
 .reg .b32 %r<5>;
 ld.param.b32 %r1, [p1];
 st.param.b32 [func_retval0], %r1;
 ret;
}
.visible .entry k(
 .param .u64 .ptr .global .align 4 a,
 .param .align 8 .b8 s[24],
 .param .u8 c
)
.maxntid 256, 1, 1
.minnctapersm 2
{
 .reg .pred %p<3>; .reg .b16 %h<3>; .reg .f32 %f<3>; .reg .b32 %r<9>; .reg .b64 %d<9>;
 .shared .align 4 .b8 place[64];
 .local .align 8 .b8 depot[32];
 .loc 1 2 3
 ld.param.u64 %d1, [a]; cvta.to.global.u64 %d2, %d1;
 mov.u32 %r1, %tid.x; mov.u64 %d3, dyn; mov.b64 %d4, table+4;
 @%p1 bra $L_1; @!%p1 add.s32 %r2, %r1, -4;
 { .param .b64 q0; .param .b32 q1; .param .b32 r0;
   st.param.b64 [q0+0], %d1; st.param.b32 [q1], %r1;
   call.uni (r0), helper, (q0, q1); ld.param.b32 %r3, [r0]; }
 ld.global.nc.v2.f32 {%f1, _}, [%d2+8]; fma.rn.f32 %f2, %f1, 0f3F800000, %f1;
 setp.lt.and.s32 %p1|%p2, %r1, 5, !%p1; selp.b32 %r4, %r1, %r2, %p1;
 atom.global.add.f32 %f1, [%d2], %f2; shfl.sync.down.b32 %r5|%p1, %r1, 1, 31, -1;
 bar.sync 0; .pragma "nounroll"; mad.wide.s32 %d5, %r1, 4, %d2; cvt.rn.f32.s32 %f1, %r1;
 st.shared.u8 [place+3], %r1; st.local.v4.b32 [depot], {%r1, %r2, %r3, %r4};
$L_1:
 ret;
}
"#;

type Check = fn(&Reason) -> bool;

fn refused(body: &str) -> Reason {
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 a) {{ .reg .pred %p<2>; .reg .b32 %r<4>; .reg .b64 %d<4>; {body} ret; }}"
    );
    parse(&text).expect_err(body).reason
}

#[test]
fn accepts_compiler_output() {
    let program = parse(TEXT).unwrap();
    let (_, kernel) = program.entries().next().unwrap();
    let layout: Vec<_> = kernel
        .parameters
        .iter()
        .map(|one| (one.offset, one.size))
        .collect();
    assert_eq!(layout, [(0, 8), (8, 24), (32, 1)]);
    assert_eq!(kernel.max_threads, Some(256));
    assert_eq!((kernel.shared_size, kernel.local_size), (64, 32));
    let numbers = &program.variables[2];
    assert_eq!(numbers.size, 32);
    assert_eq!(numbers.initial[8..16], (-2.0f64).to_le_bytes());
}

#[test]
fn refuses_unknown_instructions() {
    use Reason::{Expected, Instruction, Operands, Twice, Undeclared};
    let cases: [(&str, Check); 22] = [
        ("frobnicate.u32 %r1, %r2;", |reason| {
            matches!(reason, Instruction(_))
        }),
        ("add.u32 %r1, %r2, %r9;", |reason| {
            matches!(reason, Undeclared(_))
        }),
        ("add.u32 %r1, %r2;", |reason| matches!(reason, Operands(_))),
        ("add.rz.f32 %r1, %r2, %r3;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("add.wide.u32 %r1, %r2, %r3;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("add %r1, %r2, %r3;", |reason| matches!(reason, Operands(_))),
        ("mul.u32 %r1, %r2, %r3;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("mul.wide.u64 %d1, %d2, %d3;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("ld.f16 %r1, [%d1];", |reason| matches!(reason, Operands(_))),
        ("st.const.u32 [%d1], 1;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("cvt.rz.f32.f64 %r1, %d1;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("shfl.down.b32 %r1, %r2, 1, 31;", |reason| {
            matches!(reason, Operands(_))
        }),
        ("bra NOWHERE;", |reason| matches!(reason, Undeclared(_))),
        ("L: L: ret;", |reason| matches!(reason, Twice(_))),
        (".reg .b32 %r1;", |reason| matches!(reason, Twice(_))),
        ("call nobody;", |reason| matches!(reason, Undeclared(_))),
        ("@%r1 ret;", |reason| matches!(reason, Expected(_))),
        ("add.u32 %r1 %r2, %r3;", |reason| {
            matches!(reason, Expected(_))
        }),
        ("ld.global.u32 %r1, [%p1];", |reason| {
            matches!(reason, Operands(_))
        }),
        ("mov.b64 {%r1, {%r2}}, %d1;", |reason| {
            matches!(reason, Expected(_))
        }),
        (".reg .b32 %x<99999999>;", |reason| {
            matches!(reason, Expected(_))
        }),
        (".shared .b8 x[999999999999];", |reason| {
            matches!(reason, Expected(_))
        }),
    ];
    for (body, fits) in cases {
        let reason = refused(body);
        assert!(fits(&reason), "{body}: {reason:?}");
    }
}

#[test]
fn refuses_invalid_ptx() {
    let texts = [
        "",
        "hello",
        ".version 7.5\n",
        ".version 7.5\n.target gfx906\n.address_size 64\n",
        ".version 7.5\n.target sm_75\n.address_size 32\n",
        &format!("{HEAD}.visible .entry k() {{ ret; "),
        &format!("{HEAD}.extern .func missing(); .visible .entry k() {{ call missing; ret; }}"),
        &format!("{HEAD}.visible .entry k() {{ ret; }} .visible .entry k() {{ ret; }}"),
        &format!("{HEAD}.visible .entry k(.param .u64 a, .param .u64 a) {{ ret; }}"),
        &format!("{HEAD}.global .align 3 .u32 x;"),
        &format!("{HEAD}.frobnicate;"),
    ];
    for text in texts {
        assert!(parse(text).is_err(), "{text}");
    }
    let newer = parse(".version 9.5\n.target sm_90\n").unwrap_err();
    assert_eq!(newer.reason, Reason::Version("9.5".to_owned()));
}

#[test]
fn errors_name_their_line() {
    let text = format!("{HEAD}.visible .entry k()\n{{\n  ret;\n  frob;\n}}");
    assert_eq!(parse(&text).unwrap_err().line, 7);
}

#[test]
fn refuses_text_that_ends_within_braces() {
    for end in TEXT.find(".file").unwrap()..TEXT.trim_end().len() {
        let text = &TEXT[..end];
        let within = text.matches('{').count() > text.matches('}').count();
        assert!(!within || parse(text).is_err(), "{text}");
    }
}

/// Random edits: a position, the number of characters to remove, and the text to insert.
fn damages() -> impl Strategy<Value = Vec<(usize, usize, String)>> {
    let pieces = prop_oneof![
        Just(String::new()),
        "[ -~]{0,6}",
        prop::sample::select(vec![
            "{",
            "}",
            ";",
            ",",
            "[",
            "]",
            "%r1",
            "%d1",
            "%p1",
            ".u64",
            ".f32",
            ".v4",
            "-1",
            "0xffffffffffffffff",
            "4294967296",
            "place",
            "dyn",
            "table",
            "k",
            "helper",
            "@%p1 ",
            "bra $L_1;",
            "bar.sync 0;",
            "call helper;",
            "st.u32 [%d1], %r1;",
            ".param .b64 x;",
            ".align 65536",
            "div.s32 %r1, %r2, %r3;",
            "shl.b64 %d1, %d2, %r1;",
            "é",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, pieces), 1..6).prop_map(
        |damages| {
            let places = damages.into_iter();
            places
                .map(|(at, skip, text)| (at.index(TEXT.len()), skip, text))
                .collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Every text that parses can be run: it may fault or take forever, but must not panic.
    #[test]
    fn damaged_text_is_refused_or_runs(damages in damages()) {
        let mut text = TEXT.to_owned();
        for (at, skip, piece) in damages {
            let at = at.min(text.len());
            let end = (at + skip).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &piece);
            }
        }
        if let Ok(program) = parse(&text) {
            fuzz(program);
        }
    }
}
