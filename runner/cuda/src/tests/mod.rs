//! Tests of calls over a mock driver inside the test process.

mod mock;
mod random_calls;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use faas_wasm_artifact::CudaAbi;
use faas_wasm_engine::Stop;

use crate::host::{FileProblem, GuestHost};
use crate::imports::Imports;
use crate::instance::Instance;
use crate::linker::{FUNCTIONS, invoke};
use crate::service::Cuda;
use crate::settings::{Log, Settings};
use mock::{Mock, books};

/// The process has one mock, so tests use it one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A kernel with two marked pointers, an unmarked 8-byte parameter, and a word.
const PTX: &[u8] = b".version 7.5\n.entry k(.param .u64 .ptr a, .param .u64 .ptr b, .param .u64 c, .param .u32 d) { ret; }\0";

/// A guest that consists only of memory.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) deadline: Option<Instant>,
}

impl GuestHost for Memory {
    fn bytes(&self, offset: u32, length: u32) -> Option<&[u8]> {
        self.bytes
            .get(offset as usize..offset as usize + length as usize)
    }

    fn bytes_mut(&mut self, offset: u32, length: u32) -> Option<&mut [u8]> {
        self.bytes
            .get_mut(offset as usize..offset as usize + length as usize)
    }

    fn memory_size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn grow(&mut self, pages: u32) -> Option<u32> {
        let old = self.bytes.len() >> 16;
        let length = self.bytes.len() + ((pages as usize) << 16);
        (length <= 4 << 20).then(|| self.bytes.resize(length, 0))?;
        Some(old as u32)
    }

    fn read_file(&mut self, path: &str, _limit: u64) -> Result<Vec<u8>, FileProblem> {
        match path {
            "k.ptx" => Ok(PTX.to_vec()),
            _ => Err(FileProblem::NotFound),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A guest with CUDA. It holds the mock until it is dropped.
pub(super) struct Guest {
    pub(super) memory: Memory,
    instance: Option<Instance>,
    cuda: Arc<Cuda>,
    imports: Arc<Imports>,
    _turn: MutexGuard<'static, ()>,
}

impl Guest {
    pub(super) fn new(abi: CudaAbi, settings: Settings) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        books(|books| *books = Default::default());
        let cuda = Cuda::start_with(
            settings,
            Log::new(|_, _| {}),
            |_, _| {},
            |_| Ok(Box::new(Mock)),
        )
        .unwrap();
        let imports = Arc::new(Imports {
            abi,
            unsupported: Vec::new(),
            declared: Default::default(),
        });
        let instance = Some(Instance::new(&cuda, &imports));
        let memory = Memory {
            bytes: vec![0; 1 << 20],
            deadline: None,
        };
        let mut guest = Self {
            memory,
            instance,
            cuda,
            imports,
            _turn: turn,
        };
        assert_eq!(guest.call("cuInit", &[0]), Ok(0));
        guest
    }

    pub(super) fn call(&mut self, name: &str, arguments: &[u64]) -> Result<i32, Stop> {
        let instance = self.instance.as_mut().unwrap();
        let mut state = instance.take_state();
        let result = invoke(
            &self.cuda,
            &self.imports,
            &mut state,
            &mut self.memory,
            name,
            arguments,
        );
        self.instance.as_mut().unwrap().put_state(state);
        result
    }

    #[track_caller]
    pub(super) fn ok(&mut self, name: &str, arguments: &[u64]) {
        assert_eq!(self.call(name, arguments), Ok(0), "{name}");
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.memory.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn word(&self, at: usize) -> u64 {
        u64::from(u32::from_le_bytes(
            self.memory.bytes[at..at + 4].try_into().unwrap(),
        ))
    }

    pub(super) fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.memory.bytes[at..at + 8].try_into().unwrap())
    }

    /// Ends the instance and the service. Checks that nothing is left and that the mock saw no violation.
    #[track_caller]
    pub(super) fn end(mut self) {
        self.instance = None;
        assert!(self.cuda.settle(Duration::from_secs(60)));
        self.cuda.stop();
        books(|books| {
            assert_eq!(books.violations, Vec::<String>::new());
            assert_eq!(books.left(), 0, "{books:?}");
        });
    }
}

/// A guest with a context, a module, a kernel (handle at 64), and 1000 bytes of memory (address at 72).
pub(super) fn with_kernel(abi: CudaAbi, settings: Settings) -> Guest {
    let mut guest = Guest::new(abi, settings);
    guest.ok("cuCtxCreate_v2", &[48, 0, 0]);
    guest.write(4096, PTX);
    guest.write(8192, b"k\0");
    guest.ok("cuModuleLoadData", &[56, 4096]);
    guest.ok("cuModuleGetFunction", &[64, guest.word(56), 8192]);
    guest.ok("cuMemAlloc_v2", &[72, 1000]);
    guest
}

#[test]
fn types_are_those_of_the_headers() {
    let table = include_str!("../../../../compiler/src/cuda_functions.tsv");
    for (names, kinds) in FUNCTIONS {
        for name in names.iter().filter(|name| !name.starts_with("faas")) {
            let line = table
                .lines()
                .find(|line| line.split('\t').next() == Some(name));
            let columns: Vec<_> = line
                .unwrap_or_else(|| panic!("{name} is not in the table"))
                .split('\t')
                .collect();
            for (column, abi) in [(1, CudaAbi::W32), (2, CudaAbi::W32P64), (3, CudaAbi::W64)] {
                let types: Vec<_> = kinds
                    .iter()
                    .map(|kind| kind.value_type(abi).to_string())
                    .collect();
                assert_eq!(
                    columns[column],
                    format!("({})", types.join(",")),
                    "{name} with {abi}"
                );
            }
        }
    }
}

#[test]
fn results_have_the_guests_widths() {
    let mut guest = Guest::new(CudaAbi::W32, Settings::default());
    guest.ok("cuCtxCreate_v2", &[16, 0, 0]);
    guest.write(96, &[0xee; 16]);
    guest.ok("cuMemAlloc_v2", &[100, 1000]);
    assert_eq!(guest.word(96), 0xeeee_eeee);
    assert_eq!(guest.word(100), 0x8000_0000);
    assert_eq!(
        guest.word(104),
        0xeeee_eeee,
        "a pointer of four bytes is four bytes"
    );
    guest.end();
    let mut guest = Guest::new(CudaAbi::W32P64, Settings::default());
    guest.ok("cuCtxCreate_v2", &[16, 0, 0]);
    guest.ok("cuMemAlloc_v2", &[100, 1000]);
    assert!(guest.long(100) > 0x7f00_0000_0000);
    guest.end();
}

#[test]
fn pointers_are_translated_and_numbers_are_not() {
    let mut guest = with_kernel(CudaAbi::W32, Settings::default());
    let (kernel, memory) = (guest.word(64), guest.word(72));
    // Values at 256, 264 and so on; the array of pointers to them at 300.
    guest.write(256, &((memory as u32) + 8).to_le_bytes());
    guest.write(264, &0u32.to_le_bytes());
    guest.write(272, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    for (index, at) in [256u32, 264, 272, 280].into_iter().enumerate() {
        guest.write(300 + index * 4, &at.to_le_bytes());
    }
    let launch =
        |guest: &mut Guest| guest.call("cuLaunchKernel", &[kernel, 1, 1, 1, 1, 1, 1, 0, 0, 300, 0]);
    assert_eq!(launch(&mut guest), Ok(0));
    let launched = books(|books| books.launched.clone());
    assert_eq!(launched[0] & 0xffff_ffff, launched[0] & !7 & 0xffff_ffff);
    assert!(
        launched[0] > 0x7f00_0000_0000 && launched[0] % 512 == 8,
        "{launched:x?}"
    );
    assert_eq!(launched[1..], [0, 0x1234_5678_9abc_def0]);
    // The kind of the third is unknown: a value that is a valid address is translated.
    guest.write(272, &(memory + (0xdead << 32)).to_le_bytes());
    assert_eq!(launch(&mut guest), Ok(0));
    assert_eq!(books(|books| books.launched[2]), launched[0] - 8);
    // The first is a pointer, so its address must belong to the guest.
    guest.write(256, &0x9999_0000u32.to_le_bytes());
    assert_eq!(launch(&mut guest), Ok(1));
    guest.end();
}

#[test]
fn memory_that_is_not_the_guests_is_refused() {
    let mut guest = with_kernel(CudaAbi::W32, Settings::default());
    let memory = guest.word(72);
    let end = guest.memory.bytes.len() as u64;
    for (name, arguments, code) in [
        ("cuMemAlloc_v2", &[0, 100][..], 1),
        ("cuMemAlloc_v2", &[end - 3, 100], 1),
        ("cuMemAlloc_v2", &[0xffff_fffe, 100], 1),
        ("cuMemAlloc_v2", &[100, 0], 1),
        ("cuMemAlloc_v2", &[100, 2 << 30], 2),
        ("cuMemcpyHtoD_v2", &[memory, 4096, 1001], 1),
        ("cuMemcpyHtoD_v2", &[memory + 1000, 4096, 1], 1),
        ("cuMemcpyHtoD_v2", &[memory, end - 10, 11], 1),
        ("cuMemcpyDtoH_v2", &[end - 10, memory, 11], 1),
        ("cuMemcpyDtoD_v2", &[memory, memory - 1, 2], 1),
        ("cuMemsetD32_v2", &[memory, 0, 251], 1),
        ("cuMemsetD32_v2", &[memory + 2, 0, 1], 1),
        ("cuMemFree_v2", &[memory + 4], 1),
        ("cuStreamSynchronize", &[0x4000_0007], 400),
        ("cuModuleUnload", &[0x2000_0401], 400),
        ("cuCtxSetCurrent", &[0x1000_0001], 201),
        ("cuModuleLoad", &[100, 8192], 301),
        ("cuDeviceGet", &[100, 1], 101),
    ] {
        assert_eq!(
            guest.call(name, arguments),
            Ok(code),
            "{name} {arguments:x?}"
        );
    }
    guest.ok("cuMemFree_v2", &[memory]);
    assert_eq!(guest.call("cuMemFree_v2", &[memory]), Ok(1), "twice");
    guest.end();
}

#[test]
fn waits_end_at_the_deadline_and_poison_the_instance() {
    let mut guest = with_kernel(CudaAbi::W32, Settings::default());
    books(|books| books.busy = 50);
    guest.ok("cuCtxSynchronize", &[]);
    books(|books| books.busy = u32::MAX);
    guest.memory.deadline = Some(Instant::now() + Duration::from_millis(20));
    assert_eq!(guest.call("cuCtxSynchronize", &[]), Err(Stop::DEADLINE));
    assert_eq!(guest.call("cuMemAlloc_v2", &[100, 4]), Ok(702));
    guest.write(200, &[0; 4]);
    guest.ok("cuGetErrorName", &[702, 200]);
    assert_ne!(guest.word(200), 0);
    books(|books| books.busy = 0);
}

#[test]
fn names_are_written_once_and_again_if_they_are_overwritten() {
    let mut guest = Guest::new(CudaAbi::W32, Settings::default());
    let name = |guest: &mut Guest| {
        guest.ok("cuGetErrorName", &[2, 100]);
        let at = guest.word(100) as usize;
        let end = at
            + guest.memory.bytes[at..]
                .iter()
                .position(|byte| *byte == 0)
                .unwrap();
        (
            at,
            String::from_utf8(guest.memory.bytes[at..end].to_vec()).unwrap(),
        )
    };
    let (at, text) = name(&mut guest);
    assert_eq!((at, &*text), (at, "CUDA_ERROR_OUT_OF_MEMORY"));
    assert_eq!(name(&mut guest).0, at);
    guest.memory.bytes[at] = b'x';
    let (moved, text) = name(&mut guest);
    assert_ne!(moved, at);
    assert_eq!(text, "CUDA_ERROR_OUT_OF_MEMORY");
    assert_eq!(
        guest.memory.bytes[at], b'x',
        "the guest's bytes are not overwritten"
    );
    guest.write(100, &[7; 4]);
    assert_eq!(guest.call("cuGetErrorName", &[12345, 100]), Ok(1));
    assert_eq!(guest.word(100), 0);
    guest.end();
}
