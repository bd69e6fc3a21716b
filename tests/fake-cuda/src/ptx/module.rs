//! Parses a module's directives: variables, kernels and functions.

use std::collections::HashMap;

use super::lexer::{Token, tokens};
use super::types::{Space, Type};
use super::{BUILTINS, Error, Function, Parameter, Program, Reason, Result, Variable};

/// The newest PTX version that the driver accepts.
const NEWEST: (u64, u64) = (9, 0);
/// Larger than the memory of any device, to limit sizes.
const LARGEST: usize = 1 << 30;

/// A name in a module's scope.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    Variable(usize),
    Shared(u64),
    DynamicShared,
    Function(usize),
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    position: usize,
    pub(super) program: Program,
    pub(super) globals: HashMap<String, Global>,
}

/// Parses a module.
pub(crate) fn parse(text: &str) -> Result<Program> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        position: 0,
        program: Program {
            functions: Vec::new(),
            variables: Vec::new(),
            shared_size: 0,
        },
        globals: HashMap::new(),
    };
    parser.header()?;
    while !parser.at_end() {
        parser.directive()?;
    }
    let unresolved = parser
        .program
        .functions
        .iter()
        .find(|function| function.external && !BUILTINS.contains(&function.name.as_str()));
    match unresolved {
        Some(function) => Err(parser.error(Reason::Undeclared(function.name.clone()))),
        None => Ok(parser.program),
    }
}

/// A declaration: type, name and number of elements.
pub(super) struct Declared {
    pub(super) kind: Type,
    pub(super) align: usize,
    pub(super) name: String,
    pub(super) size: usize,
    /// Declared with `[]`.
    pub(super) open: bool,
}

impl Parser {
    pub(super) fn error(&self, reason: Reason) -> Error {
        let at = self.position.min(self.tokens.len().saturating_sub(1));
        let line = self.tokens.get(at).map_or(1, |(_, line)| *line);
        Error { line, reason }
    }

    pub(super) fn line(&self) -> u32 {
        self.error(Reason::Expected("")).line
    }

    pub(super) fn expected<T>(&self, what: &'static str) -> Result<T> {
        Err(self.error(Reason::Expected(what)))
    }

    fn at_end(&self) -> bool {
        self.position >= self.tokens.len()
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position).map(|(token, _)| token)
    }

    pub(super) fn peek_second(&self) -> Option<&Token> {
        self.tokens.get(self.position + 1).map(|(token, _)| token)
    }

    pub(super) fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.position += 1;
        token
    }

    pub(super) fn take_symbol(&mut self, symbol: char) -> bool {
        let there = self.peek() == Some(&Token::Symbol(symbol));
        self.position += usize::from(there);
        there
    }

    pub(super) fn symbol(&mut self, symbol: char, what: &'static str) -> Result<()> {
        if self.take_symbol(symbol) {
            return Ok(());
        }
        self.expected(what)
    }

    pub(super) fn take_dot(&mut self, name: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Dot(found)) if found == name);
        self.position += usize::from(there);
        there
    }

    pub(super) fn dot(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Dot(name)) => {
                let name = name.clone();
                self.position += 1;
                Ok(name)
            }
            _ => self.expected("a directive"),
        }
    }

    pub(super) fn word(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Word(name)) => {
                let name = name.clone();
                self.position += 1;
                Ok(name)
            }
            _ => self.expected("a name"),
        }
    }

    pub(super) fn integer(&mut self) -> Result<u64> {
        match self.peek() {
            Some(Token::Integer(value)) => {
                let value = *value;
                self.position += 1;
                Ok(value)
            }
            _ => self.expected("a number"),
        }
    }

    fn size(&mut self) -> Result<usize> {
        let value = self.integer()?;
        let size = usize::try_from(value).ok().filter(|size| *size <= LARGEST);
        size.ok_or(self.error(Reason::Expected("a smaller number")))
    }

    fn alignment(&mut self) -> Result<usize> {
        let align = self.size()?;
        if !align.is_power_of_two() || align > 1 << 16 {
            return self.expected("an alignment");
        }
        Ok(align)
    }

    /// Skips to the first token of the next line.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while !self.at_end() && self.line() == line {
            self.position += 1;
        }
    }

    fn header(&mut self) -> Result<()> {
        if !self.take_dot("version") {
            return self.expected("`.version`");
        }
        let version = match self.take() {
            Some(Token::Double(version)) => version.to_string(),
            Some(Token::Integer(version)) => format!("{version}.0"),
            _ => return self.expected("a version"),
        };
        // The lexer has turned `9.0` into the float `9`.
        let (major, minor) = version.split_once('.').unwrap_or((&version, "0"));
        let numbers = (
            major.parse().unwrap_or(u64::MAX),
            minor.parse().unwrap_or(u64::MAX),
        );
        if numbers > NEWEST {
            return Err(self.error(Reason::Version(version)));
        }
        if !self.take_dot("target") {
            return self.expected("`.target`");
        }
        let target = self.word()?;
        if !target.starts_with("sm_") {
            return self.expected("a target such as sm_75");
        }
        while self.take_symbol(',') {
            self.word()?;
        }
        if self.take_dot("address_size") && self.integer()? != 64 {
            return Err(self.error(Reason::Unsupported("addresses have 64 bits here")));
        }
        Ok(())
    }

    fn directive(&mut self) -> Result<()> {
        let mut external = false;
        loop {
            let name = self.dot()?;
            match name.as_str() {
                "visible" | "weak" | "common" => {}
                "extern" => external = true,
                "entry" => return self.function(true),
                "func" => return self.function(false),
                "global" | "const" | "shared" => {
                    let space = Space::parse(&name).unwrap_or(Space::Global);
                    return self.variable(space, external);
                }
                "file" | "loc" => {
                    self.skip_line();
                    return Ok(());
                }
                "pragma" => {
                    self.take();
                    return self.symbol(';', "`;`");
                }
                "section" => return self.section(),
                _ => return Err(self.error(Reason::Directive(name))),
            }
        }
    }

    /// Debug information, which is skipped.
    fn section(&mut self) -> Result<()> {
        while self.peek() != Some(&Token::Symbol('{')) {
            if self.take().is_none() {
                return self.expected("`{`");
            }
        }
        while !self.take_symbol('}') {
            if self.take().is_none() {
                return self.expected("`}`");
            }
        }
        Ok(())
    }

    /// `.align 4 .b8 name[16]` and the like, for variables and parameters.
    pub(super) fn declared(&mut self) -> Result<Declared> {
        let mut align = None;
        let mut kind = None;
        let mut pointer = false;
        while let Some(Token::Dot(_)) = self.peek() {
            let name = self.dot()?;
            match name.as_str() {
                "align" if pointer => {
                    // The alignment of the data that the parameter points to.
                    self.alignment()?;
                }
                "align" => align = Some(self.alignment()?),
                "ptr" => pointer = true,
                "global" | "const" | "shared" | "local" if pointer => {}
                "v2" | "v4" => {
                    return Err(self.error(Reason::Unsupported("vector variables")));
                }
                _ => match Type::parse(&name) {
                    Some(found) if kind.is_none() => kind = Some(found),
                    _ => return Err(self.error(Reason::Directive(name))),
                },
            }
        }
        let kind = kind.ok_or(self.error(Reason::Expected("a type")))?;
        let name = self.word()?;
        let mut size = kind.bytes();
        let mut open = false;
        while self.take_symbol('[') {
            if self.take_symbol(']') {
                open = true;
                continue;
            }
            size = size.saturating_mul(self.size()?);
            self.symbol(']', "`]`")?;
        }
        if size > LARGEST {
            return self.expected("a smaller variable");
        }
        Ok(Declared {
            kind,
            align: align.unwrap_or(kind.bytes()),
            name,
            size,
            open,
        })
    }

    pub(super) fn declare(&mut self, name: &str, global: Global) -> Result<()> {
        let before = self.globals.insert(name.to_owned(), global);
        match before {
            Some(_) => Err(self.error(Reason::Twice(name.to_owned()))),
            None => Ok(()),
        }
    }

    fn variable(&mut self, space: Space, external: bool) -> Result<()> {
        let declared = self.declared()?;
        if space == Space::Shared {
            let global = if external || declared.open {
                Global::DynamicShared
            } else {
                Global::Shared(self.place_shared(&declared)?)
            };
            self.declare(&declared.name, global)?;
            return self.symbol(';', "`;`");
        }
        if external {
            return Err(self.error(Reason::Undeclared(declared.name)));
        }
        let mut variable = Variable {
            name: declared.name.clone(),
            size: declared.size,
            initial: Vec::new(),
            addresses: Vec::new(),
        };
        if self.take_symbol('=') {
            self.initializer(&declared, &mut variable)?;
            if declared.open {
                variable.size = variable.initial.len();
            }
        }
        if variable.initial.len() > variable.size {
            return self.expected("fewer initial values");
        }
        self.declare(
            &declared.name,
            Global::Variable(self.program.variables.len()),
        )?;
        self.program.variables.push(variable);
        self.symbol(';', "`;`")
    }

    /// Assigns an offset to a shared variable.
    pub(super) fn place_shared(&mut self, declared: &Declared) -> Result<u64> {
        let start = self.program.shared_size.next_multiple_of(declared.align);
        let end = start + declared.size;
        if end > LARGEST {
            return self.expected("less shared memory");
        }
        self.program.shared_size = end;
        Ok(start as u64)
    }

    fn initializer(&mut self, declared: &Declared, variable: &mut Variable) -> Result<()> {
        if self.take_symbol('{') {
            while !self.take_symbol('}') {
                // The rows of a multidimensional array follow each other.
                if self.peek() == Some(&Token::Symbol('{')) {
                    self.initializer(declared, variable)?;
                } else {
                    self.initial(declared, variable)?;
                }
                self.take_symbol(',');
            }
            return Ok(());
        }
        self.initial(declared, variable)
    }

    fn initial(&mut self, declared: &Declared, variable: &mut Variable) -> Result<()> {
        let negative = self.take_symbol('-');
        let value = match self.take() {
            Some(Token::Integer(value)) if negative => value.wrapping_neg(),
            Some(Token::Integer(value)) => value,
            Some(Token::Single(bits)) => u64::from(bits),
            Some(Token::Double(value)) if negative => declared.kind.float_bits(-value),
            Some(Token::Double(value)) => declared.kind.float_bits(value),
            Some(Token::Word(name)) if declared.kind.bits == 64 => {
                return self.initial_address(&name, variable);
            }
            _ => return self.expected("an initial value"),
        };
        let bytes = value.to_le_bytes();
        variable.initial.extend(&bytes[..declared.kind.bytes()]);
        Ok(())
    }

    /// `name`, `name+8` or `generic(name)+8`, for a variable that is already declared.
    fn initial_address(&mut self, name: &str, variable: &mut Variable) -> Result<()> {
        let mut name = name.to_owned();
        if name == "generic" && self.take_symbol('(') {
            name = self.word()?;
            self.symbol(')', "`)`")?;
        }
        let offset = if self.take_symbol('+') {
            self.integer()?
        } else {
            0
        };
        let Some(Global::Variable(index)) = self.globals.get(&name).copied() else {
            return Err(self.error(Reason::Undeclared(name)));
        };
        variable.addresses.push((variable.initial.len(), index));
        variable.initial.extend(offset.to_le_bytes());
        Ok(())
    }

    fn function(&mut self, entry: bool) -> Result<()> {
        let mut function = Function {
            entry,
            ..Function::default()
        };
        self.take_dot("noreturn");
        if !entry && self.take_symbol('(') {
            function.returns = self.parameters()?;
        }
        function.name = self.word()?;
        if self.take_symbol('(') {
            function.parameters = self.parameters()?;
        }
        while let Some(Token::Dot(_)) = self.peek() {
            self.performance(&mut function)?;
        }
        let declared = self.take_symbol(';');
        let number = match self.globals.get(&function.name) {
            Some(Global::Function(number)) => *number,
            Some(_) => return Err(self.error(Reason::Twice(function.name))),
            None => {
                let number = self.program.functions.len();
                self.declare(&function.name, Global::Function(number))?;
                self.program.functions.push(Function {
                    name: function.name.clone(),
                    external: true,
                    parameters: function.parameters.clone(),
                    returns: function.returns.clone(),
                    ..Function::default()
                });
                number
            }
        };
        let before = &self.program.functions[number];
        if before.parameters.len() != function.parameters.len()
            || before.returns.len() != function.returns.len()
        {
            return Err(self.error(Reason::Twice(function.name)));
        }
        if declared {
            return Ok(());
        }
        if !before.external {
            return Err(self.error(Reason::Twice(function.name)));
        }
        self.symbol('{', "`{` or `;`")?;
        self.body(&mut function)?;
        self.program.functions[number] = function;
        Ok(())
    }

    /// Directives between a function's header and its body.
    fn performance(&mut self, function: &mut Function) -> Result<()> {
        let name = self.dot()?;
        let known = [
            "maxntid",
            "reqntid",
            "minnctapersm",
            "maxnctapersm",
            "maxnreg",
            "noreturn",
            "pragma",
            "reqnctapercluster",
            "explicitcluster",
            "maxclusterrank",
        ];
        if !known.contains(&name.as_str()) {
            return Err(self.error(Reason::Directive(name)));
        }
        if name == "pragma" {
            self.take();
            return self.symbol(';', "`;`");
        }
        let mut product = 1u64;
        while let Some(Token::Integer(value)) = self.peek() {
            product = product.saturating_mul(*value);
            self.position += 1;
            self.take_symbol(',');
        }
        if name == "maxntid" || name == "reqntid" {
            function.max_threads = Some(product);
        }
        Ok(())
    }

    /// Parameters up to the closing parenthesis, with their offsets.
    fn parameters(&mut self) -> Result<Vec<Parameter>> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut end = 0usize;
        while !self.take_symbol(')') {
            if !self.take_dot("param") && !self.take_dot("reg") {
                return self.expected("`.param` or `)`");
            }
            let declared = self.declared()?;
            if parameters
                .iter()
                .any(|parameter| parameter.name == declared.name)
            {
                return Err(self.error(Reason::Twice(declared.name)));
            }
            let offset = end.next_multiple_of(declared.align);
            end = offset + declared.size;
            if end > 1 << 16 {
                return self.expected("fewer parameters");
            }
            parameters.push(Parameter {
                name: declared.name,
                offset,
                size: declared.size,
            });
            if !self.take_symbol(',') && self.peek() != Some(&Token::Symbol(')')) {
                return self.expected("`,` or `)`");
            }
        }
        Ok(parameters)
    }
}
