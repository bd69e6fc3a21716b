//! Edits of a module, similar to those that a source edit causes.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, DataSection, Function, FunctionSection, Instruction, Module,
};
use wasmparser::{
    CodeSectionReader, DataSectionReader, FunctionBody, FunctionSectionReader, Parser, Payload,
    TypeRef,
};

/// A kind of edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A function's body gets longer.
    Body,
    /// A function is inserted in the middle, so that the indices of all later functions change.
    FunctionAdded,
    /// A byte of a data segment changes.
    Data,
}

impl Edit {
    pub(crate) const ALL: [Self; 3] = [Self::Body, Self::FunctionAdded, Self::Data];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Body => "a body changed",
            Self::FunctionAdded => "a function added",
            Self::Data => "data changed",
        }
    }
}

/// The edited module, in a canonical encoding without custom sections.
pub(crate) fn apply(wasm: &[u8], edit: Option<Edit>) -> Vec<u8> {
    let mut editor = Editor::new(wasm, edit);
    let mut out = Module::new();
    let edited = editor.parse_core_module(&mut out, Parser::new(0), wasm);
    edited.expect("the module is valid");
    out.finish()
}

struct Editor {
    edit: Option<Edit>,
    imported: u32,
    /// The middle one of the defined functions: its index among them, and its type.
    middle: u32,
    middle_type: u32,
    parameters: u32,
    /// The data segment that changes: the largest one.
    segment: usize,
    /// Number of bodies read so far.
    bodies: u32,
}

impl Editor {
    fn new(wasm: &[u8], edit: Option<Edit>) -> Self {
        let (mut imported, mut types, mut parameters) = (0, Vec::new(), Vec::new());
        let mut sizes = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.expect("the module is valid") {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        let ty = ty.expect("the module is valid");
                        parameters.push(ty.params().len() as u32);
                    }
                }
                Payload::ImportSection(section) => {
                    let functions = section.into_imports().flatten();
                    let functions = functions.filter(|one| matches!(one.ty, TypeRef::Func(_)));
                    imported = functions.count() as u32;
                }
                Payload::FunctionSection(section) => types.extend(section.into_iter().flatten()),
                Payload::DataSection(section) => {
                    sizes.extend(section.into_iter().flatten().map(|one| one.data.len()));
                }
                _ => {}
            }
        }
        let middle = types.len() / 2;
        let largest = sizes.iter().enumerate().max_by_key(|(_, size)| **size);
        Self {
            edit,
            imported,
            middle: middle as u32,
            middle_type: types[middle],
            parameters: parameters[types[middle] as usize],
            segment: largest.map_or(0, |(segment, _)| segment),
            bodies: 0,
        }
    }
}

impl Reencode for Editor {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Infallible>> {
        let behind =
            self.edit == Some(Edit::FunctionAdded) && function >= self.imported + self.middle;
        Ok(function + u32::from(behind))
    }

    fn parse_custom_section(
        &mut self,
        _: &mut Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        for (number, ty) in (0..).zip(section) {
            if number == self.middle && self.edit == Some(Edit::FunctionAdded) {
                functions.function(self.middle_type);
            }
            functions.function(ty?);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_code_section(self, code, section)
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error<Infallible>> {
        let is_middle = self.bodies == self.middle;
        self.bodies += 1;
        if is_middle && self.edit == Some(Edit::FunctionAdded) {
            // It passes its arguments on to the function that now follows it.
            let mut added = Function::new([]);
            for parameter in 0..self.parameters {
                added.instruction(&Instruction::LocalGet(parameter));
            }
            added.instruction(&Instruction::Call(self.imported + self.middle + 1));
            added.instruction(&Instruction::End);
            code.function(&added);
        }
        if !(is_middle && self.edit == Some(Edit::Body)) {
            return utils::parse_function_body(self, code, body);
        }
        let mut function = self.new_function_with_parsed_locals(&body)?;
        for instruction in [
            Instruction::MemorySize(0),
            Instruction::I32Const(0x00de_c0de),
            Instruction::I32Eq,
            Instruction::If(BlockType::Empty),
            Instruction::Unreachable,
            Instruction::End,
        ] {
            function.instruction(&instruction);
        }
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            function.instruction(&self.parse_instruction(&mut reader)?);
        }
        code.function(&function);
        Ok(())
    }

    fn parse_data_section(
        &mut self,
        data: &mut DataSection,
        section: DataSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        for (number, segment) in section.into_iter().enumerate() {
            let mut segment = segment?;
            let mut bytes = segment.data.to_vec();
            if number == self.segment && self.edit == Some(Edit::Data) {
                let last = bytes.last_mut().expect("the largest one has bytes");
                *last ^= 1;
            }
            segment.data = &bytes;
            utils::parse_data(self, data, segment)?;
        }
        Ok(())
    }
}
