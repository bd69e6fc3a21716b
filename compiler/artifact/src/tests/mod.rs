//! Tests of writer and reader together, on an artifact that has something in every field.

mod damage;
mod elf;
mod fat;
mod inconsistency;
mod round_trip;

use crate::*;

/// A function address and a trampoline address in the code of [`elf::linked`].
const FUNCTION: u32 = elf::CODE as u32 + 8;
const TRAMPOLINE: u32 = elf::CODE as u32 + 16;

fn manifest() -> Manifest<'static> {
    Manifest {
        producer: "faas-wasm 1.2.3".into(),
        backend: Backend::Llvm,
        backend_version: "7.0.0".into(),
        engine_version: "7.0.1".into(),
        wasm_sha256: [7; 32],
        wasm_size: 1234,
        triple: host_triple().into(),
        cpu_features: host_features(),
        opt_level: OptLevel::Less,
        memories: vec![MemorySummary {
            minimum: 2,
            maximum: Some(3),
            shared: true,
            imported: true,
        }],
        imports: vec![Import {
            module: "m".into(),
            name: "f".into(),
            ty: "func".into(),
        }],
        needs_cuda: true,
        cuda: Some(Cuda {
            abi: CudaAbi::W32P64,
            parameters: vec![KernelParameters {
                kernel: "k".into(),
                kinds: "pi".into(),
            }],
        }),
        entry: "_start".into(),
        functions: 2,
        code_size: 0,
        image_size: 0,
    }
}

fn module() -> ModuleMetadata {
    let import = |field: &str, kind| ModuleImport {
        module: "m".into(),
        field: field.into(),
        kind,
    };
    let table = |maximum, readonly| TableType {
        element: ValueType::FuncRef,
        minimum: 4,
        maximum,
        readonly,
    };
    let global = |value, init| Global {
        value,
        mutable: init != Some(GlobalInit::RefNull),
        init,
    };
    ModuleMetadata {
        types: vec![
            FunctionType {
                params: vec![ValueType::I32, ValueType::F64, ValueType::ExternRef],
                results: vec![ValueType::I64, ValueType::V128],
                hash: 0xdead_beef,
            },
            FunctionType {
                params: vec![],
                results: vec![ValueType::F32, ValueType::ExnRef],
                hash: 1,
            },
        ],
        imports: vec![
            import("f", ImportKind::Function(1)),
            import("t", ImportKind::Table(0)),
            import("g", ImportKind::Global(0)),
            import("mem", ImportKind::Memory(0)),
            import("e", ImportKind::Tag(0)),
        ],
        imported_functions: 1,
        local_functions: 2,
        exports: vec![
            Export::Function {
                name: "_start".into(),
                index: 2,
            },
            Export::Memory {
                name: "memory".into(),
                index: 1,
            },
        ],
        start: Some(1),
        tables: vec![table(Some(4), true), table(None, false)],
        memories: vec![
            MemoryType {
                minimum: 2,
                maximum: Some(3),
                shared: true,
            },
            MemoryType {
                minimum: 4,
                maximum: None,
                shared: false,
            },
        ],
        globals: vec![
            global(ValueType::I32, None),
            global(ValueType::I32, Some(GlobalInit::I32Const(-1))),
            global(ValueType::I64, Some(GlobalInit::I64Const(i64::MIN))),
            global(ValueType::F32, Some(GlobalInit::F32Const(0x7fa0_0001))),
            global(ValueType::F64, Some(GlobalInit::F64Const(0x7ff4 << 48 | 1))),
            global(ValueType::V128, Some(GlobalInit::V128Const([9; 16]))),
            global(ValueType::I32, Some(GlobalInit::GlobalGet(1))),
            global(ValueType::ExternRef, Some(GlobalInit::RefNull)),
            global(ValueType::FuncRef, Some(GlobalInit::RefFunc(2))),
            global(
                ValueType::I64,
                Some(GlobalInit::Expression(vec![
                    ConstantOp::GlobalGetI64(2),
                    ConstantOp::I64Const(3),
                    ConstantOp::I64Mul,
                ])),
            ),
        ],
        tags: vec![1],
        elements: vec![ElementSegment {
            table: 1,
            offset: vec![
                ConstantOp::GlobalGetI32(0),
                ConstantOp::I32Const(1),
                ConstantOp::I32Add,
            ],
            length: 2,
        }],
        passive_elements: vec![PassiveElements {
            segment: 1,
            length: 1,
        }],
        ..ModuleMetadata::default()
    }
}

fn tables() -> TablesBuilder {
    TablesBuilder {
        code: vec![FUNCTION, FUNCTION + 4],
        trampolines: vec![TRAMPOLINE, TRAMPOLINE],
        signatures: vec![1, 0, 1],
        elements: vec![2, NULL_FUNCTION, 0],
    }
}

fn variant(elf: &[u8]) -> Variant<'_> {
    let mut lines = LineTable::default();
    let SourceLine { file, line } = source_line();
    let file = lines.file(file);
    lines.insert(FUNCTION, Some((file, line)));
    Variant {
        elf,
        manifest: manifest(),
        module: module(),
        tables: tables(),
        traps: vec![
            (FUNCTION + 1, TrapCode::Unreachable),
            (FUNCTION + 5, TrapCode::IntegerOverflow),
        ],
        lines,
        debug: false,
    }
}

fn source_line() -> SourceLine {
    SourceLine {
        file: "main.c".into(),
        line: 12,
    }
}

fn contents(elf: &[u8]) -> Contents<'_> {
    Contents {
        variants: vec![variant(elf)],
        names: FunctionNames {
            names: vec![(0, "imported".into()), (2, "start".into())],
            offsets: vec![40, 50],
        },
        images: vec![
            Image {
                memory: 0,
                address: IMAGE_ALIGNMENT,
                bytes: b"first".to_vec(),
            },
            Image {
                memory: 1,
                address: 0,
                bytes: [vec![0; 2 << 16], b"second".to_vec()].concat(),
            },
        ],
        passive_data: vec![(3, b"passive".to_vec()), (5, b"data".to_vec())],
    }
}

fn artifact() -> Vec<u8> {
    write(contents(&elf::linked()))
        .expect("it is as expected")
        .to_bytes()
}

/// An artifact without memory images, which make it large.
fn small_artifact() -> Vec<u8> {
    let elf = elf::linked();
    let contents = Contents {
        images: Vec::new(),
        ..contents(&elf)
    };
    write(contents).expect("it is as expected").to_bytes()
}

/// The parts of an artifact that a forger can change.
struct Parts<'a> {
    manifest: Manifest<'a>,
    module: ModuleMetadata,
    tables: TablesBuilder,
}

/// Makes a file with other content whose fast sum is right, as only a program can.
fn forge(file: &[u8], change: impl FnOnce(&mut Parts<'_>)) -> Vec<u8> {
    let artifact = Artifact::parse(file).expect("it is intact");
    let tables = &artifact.tables;
    let mut parts = Parts {
        manifest: artifact.manifest.clone(),
        module: artifact.module.clone(),
        tables: TablesBuilder {
            code: tables.code().collect(),
            trampolines: tables.trampolines().collect(),
            signatures: tables.signatures().collect(),
            elements: tables.elements().collect(),
        },
    };
    change(&mut parts);
    let mut forged = file[..file.len() - HEADER_SIZE].to_vec();
    let mut append = |bytes: Vec<u8>| {
        let offset = forged.len() as u64;
        forged.extend_from_slice(&bytes);
        Range {
            offset,
            length: bytes.len() as u64,
        }
    };
    let regions = [
        (
            Region::ElfHeaders,
            artifact.header.region(Region::ElfHeaders),
        ),
        (
            Region::Manifest,
            append(postcard::to_stdvec(&parts.manifest).expect("it can be encoded")),
        ),
        (
            Region::Module,
            append(postcard::to_stdvec(&parts.module).expect("it can be encoded")),
        ),
        (Region::Tables, append(parts.tables.encode())),
        (Region::Unwind, artifact.header.region(Region::Unwind)),
    ];
    seal(&forged, &regions)
}

/// Appends a header with a right fast sum.
fn seal(file: &[u8], regions: &[(Region, Range)]) -> Vec<u8> {
    let mut header = Header::new((file.len() + HEADER_SIZE) as u64);
    for (region, range) in regions {
        header.set_region(*region, *range);
    }
    header.fast_sum = header
        .sum_load_set(file)
        .expect("the regions are in the file");
    [file, &header.encode()].concat()
}

/// Numbers without order, the same ones each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
