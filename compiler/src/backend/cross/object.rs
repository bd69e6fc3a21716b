//! Objects that we make: the description of the module for what reads the output, and, where the
//! backend gives bodies of functions, those.
//!
//! ```text
//! .text            functions, then call trampolines                 whole objects only
//! .w.traps         for each function: count, then offset and code   whole objects only
//! .w.trap_fnoffs   place of each function's list                    whole objects only
//! .w.module_info   wasmer's description of the module
//! .w.fn_offsets    addresses of functions, then of call trampolines
//! .eh_frame        its end
//! ```
//!
//! All but code and unwind information is not loaded.

use std::collections::HashMap;

use object::write::{
    Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection,
};
use object::{
    RelocationEncoding, RelocationFlags, RelocationKind, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope, elf,
};
use wasmer_compiler::types::function::{CompiledFunction, RkyvCompilation};
use wasmer_compiler::types::relocation::RelocationTarget;
use wasmer_compiler::{
    EH_FRAME_SECTION_NAME, WASMER_FUNCTION_OFFSETS_SECTION_NAME, WASMER_MODULE_INFO_SECTION_NAME,
    WASMER_TRAP_FUNCTION_OFFSETS_SECTION_NAME, WASMER_TRAPS_SECTION_NAME,
};
use wasmer_types::target::Target;
use wasmer_types::{CompileError, TrapInformation};

/// Alignment of functions in bytes, as that of the backends.
const FUNCTION_ALIGNMENT: u64 = 16;

/// The description of a module whose functions are in other objects.
pub(super) fn metadata(
    target: &Target,
    info_blob: &[u8],
    symbols: &[String],
) -> Result<Vec<u8>, CompileError> {
    let mut builder = Builder::new(target)?;
    let symbols: Vec<_> = symbols.iter().map(|name| builder.outside(name)).collect();
    builder.describe(info_blob, &symbols)?;
    builder.finish()
}

/// An object with all of a module.
pub(super) fn whole(
    target: &Target,
    info_blob: &[u8],
    compilation: &RkyvCompilation,
) -> Result<Vec<u8>, CompileError> {
    let mut builder = Builder::new(target)?;
    // Functions refer to each other: first all bodies, then all references.
    let functions: Vec<_> = compilation
        .functions
        .iter()
        .map(|(index, function)| {
            builder.function(format!("f{}", index.as_u32()), &function.body.body)
        })
        .collect();
    for ((_, place), function) in functions.iter().zip(compilation.functions.values()) {
        builder.references(*place, function, &functions)?;
    }
    let trampolines = compilation.function_call_trampolines.iter();
    let trampolines: Vec<_> = trampolines
        .map(|(index, body)| builder.function(format!("t{}", index.as_u32()), &body.body))
        .collect();
    let traps = compilation.functions.values();
    builder.traps(traps.map(|function| &*function.frame_info.traps))?;
    let symbols: Vec<_> = functions
        .iter()
        .chain(&trampolines)
        .map(|(symbol, _)| *symbol)
        .collect();
    builder.describe(info_blob, &symbols)?;
    builder.finish()
}

struct Builder {
    object: Object<'static>,
    /// Symbols that are defined elsewhere.
    outside: HashMap<String, SymbolId>,
}

impl Builder {
    fn new(target: &Target) -> Result<Self, CompileError> {
        Ok(Self {
            object: wasmer_compiler::object::get_object_for_target(target.triple())
                .map_err(failed)?,
            outside: HashMap::new(),
        })
    }

    fn finish(self) -> Result<Vec<u8>, CompileError> {
        self.object.write().map_err(failed)
    }

    /// A symbol that another object or the runner defines.
    fn outside(&mut self, name: &str) -> SymbolId {
        if let Some(symbol) = self.outside.get(name) {
            return *symbol;
        }
        let symbol = self.object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        self.outside.insert(name.into(), symbol);
        symbol
    }

    /// Adds a function; returns its symbol and its place in the code.
    fn function(&mut self, name: String, body: &[u8]) -> (SymbolId, u64) {
        let symbol = self.object.add_symbol(Symbol {
            name: name.into_bytes(),
            value: 0,
            size: body.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        let text = self.object.section_id(StandardSection::Text);
        let place = self
            .object
            .add_symbol_data(symbol, text, body, FUNCTION_ALIGNMENT);
        (symbol, place)
    }

    /// Adds what a function's code refers to.
    fn references(
        &mut self,
        place: u64,
        function: &CompiledFunction,
        functions: &[(SymbolId, u64)],
    ) -> Result<(), CompileError> {
        let text = self.object.section_id(StandardSection::Text);
        for relocation in &function.relocations {
            let symbol = match relocation.reloc_target {
                RelocationTarget::LocalFunc(index) => functions
                    .get(index.as_u32() as usize)
                    .map(|(symbol, _)| *symbol)
                    .ok_or_else(|| failed(format!("there is no function {index:?}")))?,
                RelocationTarget::LibCall(call) => self.outside(call.to_function_name()),
                target => return Err(failed(format!("code refers to {target:?}"))),
            };
            let relocation = Relocation {
                offset: place + u64::from(relocation.offset),
                symbol,
                addend: relocation.addend,
                flags: wasmer_compiler::elf::relocation_kind_to_flags(relocation.kind)?,
            };
            self.object
                .add_relocation(text, relocation)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn traps<'a>(
        &mut self,
        functions: impl Iterator<Item = &'a [TrapInformation]>,
    ) -> Result<(), CompileError> {
        let lists = self.section(WASMER_TRAPS_SECTION_NAME);
        let places = self.section(WASMER_TRAP_FUNCTION_OFFSETS_SECTION_NAME);
        let symbol = self.object.section_symbol(lists);
        for traps in functions {
            let mut list = (traps.len() as u32).to_le_bytes().to_vec();
            for trap in traps {
                list.extend(trap.code_offset.to_le_bytes());
                list.extend((trap.trap_code as u32).to_le_bytes());
            }
            let place = self.object.append_section_data(lists, &list, 4);
            self.address(places, symbol, place as i64)?;
        }
        Ok(())
    }

    fn describe(&mut self, info_blob: &[u8], symbols: &[SymbolId]) -> Result<(), CompileError> {
        let info = self.section(WASMER_MODULE_INFO_SECTION_NAME);
        self.object.append_section_data(info, info_blob, 8);
        let offsets = self.section(WASMER_FUNCTION_OFFSETS_SECTION_NAME);
        for symbol in symbols {
            self.address(offsets, *symbol, 0)?;
        }
        let frames = self.object.add_section(
            Vec::new(),
            EH_FRAME_SECTION_NAME.into(),
            SectionKind::ReadOnlyData,
        );
        self.object.append_section_data(frames, &[0; 8], 4);
        Ok(())
    }

    /// A section that is kept and not loaded.
    fn section(&mut self, name: &[u8]) -> SectionId {
        let section = self
            .object
            .add_section(Vec::new(), name.into(), SectionKind::Other);
        self.object.section_mut(section).flags = SectionFlags::Elf {
            sh_type: elf::SHT_PROGBITS,
            sh_flags: elf::SHF_GNU_RETAIN,
        };
        section
    }

    /// Appends the address of a symbol.
    fn address(
        &mut self,
        section: SectionId,
        symbol: SymbolId,
        addend: i64,
    ) -> Result<(), CompileError> {
        let offset = self.object.append_section_data(section, &[0; 8], 8);
        let relocation = Relocation {
            offset,
            symbol,
            addend,
            flags: RelocationFlags::Generic {
                kind: RelocationKind::Absolute,
                encoding: RelocationEncoding::Generic,
                size: 64,
            },
        };
        self.object
            .add_relocation(section, relocation)
            .map_err(failed)
    }
}

fn failed(error: impl ToString) -> CompileError {
    CompileError::Codegen(format!("cannot make an object: {}", error.to_string()))
}
