//! Guests that call the CUDA driver API at random, with values that are almost right. Whatever they request, the
//! runner must not crash, must not ask the driver for another guest's objects, and must leave nothing behind.
//!
//! Each round generates, compiles and runs one program over the stand-in driver, which knows what no host may do. The
//! eight-byte parameters of a launch are the guest's responsibility; the kernel here reads none of them.

use std::fmt::Write as _;
use std::fs;

use faas_wasm_tests::random::{Random, rounds};
use faas_wasm_tests::{Backend, FakeCuda, Gpu, Guest, Work, fake_cuda};

/// The driver's functions: name, and parameter types in three data models.
const FUNCTIONS: &str = include_str!("../../compiler/src/cuda_functions.tsv");

/// Memory layout of a program: the module image, the kernel's name, and eight-byte slots for the values that calls
/// returned.
const IMAGE: usize = 4096;
const NAME: usize = 8192;
const GIVEN: usize = 64;
const PLACES: usize = 48;
/// Number of calls after which a program starts over, because it will have destroyed most of its objects.
const PART: usize = 60;
const PARTS: usize = 8;

const PTX: &str = ".version 7.5\n.target sm_75\n.address_size 64\n.global .u32 v;\n.visible .entry k(.param .u64 .ptr a, .param .u64 .ptr b, .param .u64 c, .param .u32 d) { ret; }\n";

/// Addresses of the bytes to copy, the pointers to a kernel's parameters, and two structures: a kernel node and a 2D
/// copy.
const BYTES: u64 = 16_384;
const PARAMETERS: u64 = 20_480;
const KERNEL_NODE: u64 = 24_576;
const ROWS: u64 = 25_600;

/// The calls that start every part: they make a context, a module, a kernel, memory, a stream, an event, and graphs.
const BEGINNING: &[(&str, &[Argument])] = &[
    ("cuInit", &[N(0)]),
    ("cuCtxCreate_v2", &[P(0), N(0), N(0)]),
    ("cuModuleLoadData", &[P(1), N(IMAGE as u64)]),
    ("cuModuleGetFunction", &[P(2), G(1), N(NAME as u64)]),
    ("cuMemAlloc_v2", &[P(3), N(1000)]),
    ("cuMemAlloc_v2", &[P(4), N(65_536)]),
    ("cuMemAllocAsync", &[P(5), N(512), N(0)]),
    ("cuStreamCreate", &[P(6), N(1)]),
    ("cuEventCreate", &[P(7), N(0)]),
    ("cuGraphCreate", &[P(8), N(0)]),
    ("cuGraphAddEmptyNode", &[P(9), G(8), N(0), N(0)]),
    ("cuGraphInstantiateWithFlags", &[P(10), G(8), N(0)]),
    ("cuDeviceGetDefaultMemPool", &[P(11), N(0)]),
];

/// Valid calls. The generator replaces one in eight of their arguments.
const RIGHT: &[(&str, &[Argument])] = &[
    ("cuMemAlloc_v2", &[P(12), N(100)]),
    ("cuMemAllocFromPoolAsync", &[P(12), N(100), G(11), G(6)]),
    ("cuMemFree_v2", &[G(12)]),
    ("cuMemFreeAsync", &[G(5), G(6)]),
    ("cuMemcpyHtoD_v2", &[G(3), N(BYTES), N(100)]),
    ("cuMemcpyDtoH_v2", &[N(BYTES), G(3), N(100)]),
    ("cuMemcpyDtoD_v2", &[G(3), G(4), N(500)]),
    ("cuMemcpyHtoDAsync_v2", &[G(4), N(BYTES), N(4000), G(6)]),
    ("cuMemcpyDtoHAsync_v2", &[N(BYTES), G(4), N(4000), G(6)]),
    ("cuMemcpyDtoDAsync_v2", &[G(4), G(5), N(512), G(6)]),
    ("cuMemcpy", &[G(4), G(3), N(1000)]),
    ("cuMemcpy2D_v2", &[N(ROWS)]),
    ("cuMemcpy2DAsync_v2", &[N(ROWS), G(6)]),
    ("cuMemsetD8_v2", &[G(3), N(7), N(1000)]),
    ("cuMemsetD16_v2", &[G(3), N(7), N(500)]),
    ("cuMemsetD32Async", &[G(3), N(7), N(250), G(6)]),
    ("cuMemsetD2D8_v2", &[G(4), N(256), N(7), N(100), N(256)]),
    (
        "cuMemsetD2D32Async",
        &[G(4), N(256), N(7), N(64), N(256), G(6)],
    ),
    ("cuMemGetAddressRange_v2", &[P(13), P(14), G(3)]),
    ("cuPointerGetAttribute", &[P(13), N(2), G(3)]),
    (
        "cuLaunchKernel",
        &[
            G(2),
            N(1),
            N(1),
            N(1),
            N(1),
            N(1),
            N(1),
            N(0),
            G(6),
            N(PARAMETERS),
            N(0),
        ],
    ),
    (
        "cuLaunchCooperativeKernel",
        &[
            G(2),
            N(1),
            N(1),
            N(1),
            N(1),
            N(1),
            N(1),
            N(0),
            G(6),
            N(PARAMETERS),
        ],
    ),
    ("cuStreamCreateWithPriority", &[P(15), N(0), N(0)]),
    ("cuStreamDestroy_v2", &[G(15)]),
    ("cuStreamSynchronize", &[G(6)]),
    ("cuStreamQuery", &[G(6)]),
    ("cuStreamWaitEvent", &[G(6), G(7), N(0)]),
    ("cuStreamBeginCapture_v2", &[G(6), N(1)]),
    ("cuStreamEndCapture", &[G(6), P(16)]),
    ("cuStreamIsCapturing", &[G(6), P(13)]),
    ("cuEventRecord", &[G(7), G(6)]),
    ("cuEventSynchronize", &[G(7)]),
    ("cuEventElapsedTime", &[P(13), G(7), G(7)]),
    ("cuEventDestroy_v2", &[G(7)]),
    (
        "cuGraphAddKernelNode_v2",
        &[P(17), G(8), P(9), N(1), N(KERNEL_NODE)],
    ),
    ("cuGraphGetNodes", &[G(8), N(BYTES), P(18)]),
    ("cuGraphClone", &[P(16), G(8)]),
    ("cuGraphInstantiateWithFlags", &[P(19), G(16), N(0)]),
    ("cuGraphLaunch", &[G(10), G(6)]),
    ("cuGraphLaunch", &[G(19), G(6)]),
    ("cuGraphExecDestroy", &[G(19)]),
    ("cuGraphDestroy", &[G(16)]),
    (
        "cuModuleGetGlobal_v2",
        &[P(20), P(13), G(1), N(NAME as u64 + 8)],
    ),
    ("cuModuleUnload", &[G(1)]),
    ("cuFuncGetAttribute", &[P(13), N(0), G(2)]),
    ("cuFuncGetParamInfo", &[G(2), N(1), P(13), P(14)]),
    (
        "cuOccupancyMaxActiveBlocksPerMultiprocessor",
        &[P(13), G(2), N(64), N(0)],
    ),
    ("cuMemPoolGetAttribute", &[G(11), N(4), P(13)]),
    ("cuMemAllocHost_v2", &[P(21), N(1000)]),
    ("cuMemFreeHost", &[G(21)]),
    ("cuDevicePrimaryCtxRetain", &[P(22), N(0)]),
    ("cuDevicePrimaryCtxReset_v2", &[N(0)]),
    ("cuCtxPushCurrent_v2", &[G(22)]),
    ("cuCtxSynchronize", &[]),
    ("cuCtxDestroy_v2", &[G(0)]),
];

use Argument::{Given as G, Number as N, Place as P};

/// An argument.
#[derive(Debug, Clone, Copy)]
enum Argument {
    Number(u64),
    /// The address of a slot.
    Place(usize),
    /// The contents of a slot.
    Given(usize),
    /// The contents of a slot plus a small offset.
    Near(usize, u64),
}

impl Argument {
    fn random(random: &mut Random) -> Self {
        let place = random.below(PLACES);
        match random.below(16) {
            0..4 => Self::Place(place),
            4..9 => Self::Given(random.below(12)),
            9 => Self::Given(place),
            10 => Self::Near(random.below(12), random.below(2048) as u64),
            11 => Self::Near(random.below(12), u64::MAX),
            12 => Self::Number(1 << random.below(64)),
            13 => Self::Number(u64::from(random.byte())),
            14 => Self::Number([IMAGE, NAME, 0xffff_fff0, 131_068][random.below(4)] as u64),
            _ => Self::Number(random.below(4) as u64),
        }
    }

    /// Pushes the argument as a value of this type.
    fn push(self, ty: &str, text: &mut String) {
        let at = |place: usize| GIVEN + place * 8;
        let number = |number: u64| match ty {
            "i32" => i64::from(number as u32 as i32),
            _ => number as i64,
        };
        let result = match (self, ty) {
            (_, "f32") => write!(text, "(f32.const 1)"),
            (Self::Number(value), _) => write!(text, "({ty}.const {})", number(value)),
            (Self::Place(place), _) => write!(text, "({ty}.const {})", at(place)),
            (Self::Given(place), _) => write!(text, "({ty}.load (i32.const {}))", at(place)),
            (Self::Near(place, off), _) => write!(
                text,
                "({ty}.add ({ty}.load (i32.const {})) ({ty}.const {}))",
                at(place),
                number(off)
            ),
        };
        result.expect("text has room");
    }
}

/// A function's name and its parameter types in one data model.
type Function = (&'static str, Vec<&'static str>);

/// The functions of the driver API.
fn functions(column: usize) -> Vec<Function> {
    let driver = fs::read(fake_cuda()).expect("the driver can be read");
    let names: std::collections::HashSet<_> = driver.split(|byte| *byte == 0).collect();
    let lines = FUNCTIONS.lines().map(|line| line.split('\t'));
    let functions = lines.filter_map(|mut columns| {
        let name = columns.next()?;
        let types = columns.nth(column)?.trim_matches(['(', ')']).split(',');
        let types = types.filter(|ty| !ty.is_empty()).collect();
        names.contains(name.as_bytes()).then_some((name, types))
    });
    functions.collect()
}

fn call((name, types): &Function, arguments: impl Iterator<Item = Argument>, text: &mut String) {
    write!(text, "(drop (call ${name} ").expect("text has room");
    for (ty, argument) in types.iter().zip(arguments) {
        argument.push(ty, text);
    }
    text.push_str("))\n");
}

fn known<'a>(functions: &'a [Function], name: &str) -> &'a Function {
    let function = functions.iter().find(|(known, _)| *known == name);
    function.unwrap_or_else(|| panic!("the driver has no {name}"))
}

/// Formats words as text for a data segment.
fn words(words: &[u64]) -> String {
    let bytes = words.iter().flat_map(|word| (*word as u32).to_le_bytes());
    bytes.map(|byte| format!("\\{byte:02x}")).collect()
}

fn program(random: &mut Random, functions: &[Function]) -> String {
    let mut text = String::from("(module\n");
    for (name, types) in functions {
        let types = types.join(" ");
        writeln!(
            text,
            "(import \"env\" \"{name}\" (func ${name} (param {types}) (result i32)))"
        )
        .expect("text has room");
    }
    writeln!(
        text,
        "(memory (export \"memory\") 2 64)\n(data (i32.const {IMAGE}) {PTX:?})\n(data (i32.const {NAME}) \"k\\00\\00\\00\\00\\00\\00\\00v\")"
    )
    .expect("text has room");
    let place = |place: usize| (GIVEN + 8 * place) as u64;
    let parameters = [place(3), place(4), place(13), place(13)];
    let node = [0, 1, 1, 1, 1, 1, 1, 0, PARAMETERS, 0];
    // From device to device: 8 bytes of each of 4 rows.
    let rows = [0, 0, 2, 0, 0, 0, 64, 0, 0, 2, 0, 0, 0, 32, 8, 4];
    for (at, content) in [
        (PARAMETERS, &parameters[..]),
        (KERNEL_NODE, &node),
        (ROWS, &rows),
    ] {
        writeln!(text, "(data (i32.const {at}) \"{}\")", words(content)).expect("text has room");
    }
    for part in 0..PARTS {
        writeln!(text, "(func $part{part}").expect("text has room");
        for (name, arguments) in BEGINNING {
            call(known(functions, name), arguments.iter().copied(), &mut text);
        }
        // The structures use the layout for 4-byte pointers; for 8-byte pointers, their contents are effectively
        // random.
        for (at, place) in [(KERNEL_NODE, 2), (ROWS + 16, 3), (ROWS + 44, 4)] {
            write!(text, "(i32.store (i32.const {at}) ").expect("text has room");
            G(place).push("i32", &mut text);
            text.push_str(")\n");
        }
        for _ in 0..PART {
            if random.below(4) == 0 {
                let at = GIVEN + 8 * (12 + random.below(PLACES - 12)) + 4 * random.below(2);
                write!(text, "(i32.store (i32.const {at}) ").expect("text has room");
                Argument::random(random).push("i32", &mut text);
                text.push_str(")\n");
            }
            if random.below(3) == 0 {
                let function = &functions[random.below(functions.len())];
                let arguments = std::iter::repeat_with(|| Argument::random(random));
                call(function, arguments, &mut text);
                continue;
            }
            let (name, arguments) = RIGHT[random.below(RIGHT.len())];
            let arguments = arguments.iter().map(|argument| match random.below(8) {
                0 => Argument::random(random),
                _ => *argument,
            });
            call(known(functions, name), arguments, &mut text);
        }
        text.push_str(")\n");
    }
    text.push_str("(func (export \"_start\")\n");
    for part in 0..PARTS {
        writeln!(text, "(call $part{part})").expect("text has room");
    }
    text.push_str("))\n");
    text
}

fn runs(column: usize, isolation: &str) {
    let functions = functions(column);
    assert!(functions.len() > 150, "{}", functions.len());
    // A round takes as long as five rounds of the other randomized tests.
    for seed in rounds().step_by(5) {
        let text = program(&mut Random::new(seed), &functions);
        let work = Work::new();
        let module = wat::parse_str(&text).expect("the text is correct");
        let module = work.write("a.wasm", module);
        let guest = Guest::compiled(&module, Backend::Cranelift);
        // Some launches have more blocks than the test can wait for.
        let driver = FakeCuda::new().with("launch_timeout", "200ms");
        let gpu = Gpu::of(driver)
            .env("cuda_isolation", isolation)
            .env("cuda_mem_limit", "1Mi");
        let outcome = gpu.run(guest.artifact(), None, &[]);
        assert_eq!(outcome.code(), 0, "seed {seed}: {}", outcome.stderr);
        assert!(
            !outcome.stderr.contains("panicked"),
            "seed {seed}: {}",
            outcome.stderr
        );
        let census = gpu.census();
        assert_eq!(census.violations(), [""; 0], "seed {seed}");
        assert!(census.is_empty(0), "seed {seed}: {census:#?}");
        // Most functions that succeed at all succeed in any program.
        let called = census.called();
        assert!(called.len() > 40, "seed {seed}: {called:?}");
    }
}

#[test]
fn random_calls_with_narrow_pointers_touch_nothing_foreign() {
    runs(0, "context");
}

#[test]
fn random_calls_with_wide_pointers_touch_nothing_foreign() {
    runs(1, "context");
}

#[test]
fn random_calls_in_a_shared_context_touch_nothing_foreign() {
    runs(0, "shared");
}
