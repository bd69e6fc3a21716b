//! Converts a script of the suite to units of work: bundles of related modules with the actions on them in order, and
//! modules that must be rejected.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wast::lexer::Lexer;
use wast::parser::{self, ParseBuffer};
use wast::token::{Id, Span};
use wast::{QuoteWat, QuoteWatTest, Wast, WastDirective, WastExecute, WastInvoke};

use crate::shape::Shape;
use crate::spectest;
use crate::trap::Trap;
use crate::value::{Argument, Expected};

/// Reason for skipping directives that follow a skipped one.
const AFTER_SKIPPED: &str = "follows a directive that was left out and may change state";
/// The product does not link modules at run time.
const NO_LINKING: &str = "asserts an error of linking, which the product does not do";
/// A module in this product has one thread.
const NO_THREADS: &str = "needs a second thread";

/// A module in binary or text form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Binary(Vec<u8>),
    Text(Vec<u8>),
}

/// An instantiated module.
pub(crate) struct Instance {
    /// The module as in the script.
    pub(crate) source: Source,
    /// The module in binary format.
    pub(crate) wasm: Vec<u8>,
    pub(crate) shape: Shape,
    /// The values of its imports: exports of earlier instances in the bundle.
    pub(crate) imports: Vec<(usize, String)>,
    /// Whether this is the predefined module `spectest`.
    pub(crate) is_spectest: bool,
}

/// An action on an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// A skipped action.
    Nothing,
    Instantiate,
    Call(String, Vec<Argument>),
    Get(String),
}

/// The expected end of an action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// Returns, with any results.
    Returned,
    /// Returns these values.
    Values(Vec<Expected>),
    Trap(Trap),
}

/// A directive about an instance.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) instance: usize,
    pub(crate) act: Act,
    pub(crate) ending: Ending,
    /// Why the directive is skipped, if it is.
    pub(crate) skipped: Option<&'static str>,
}

/// Related instances, and the actions on them.
#[derive(Default)]
pub(crate) struct Bundle {
    pub(crate) instances: Vec<Instance>,
    pub(crate) steps: Vec<Step>,
}

/// A unit of work.
pub(crate) enum Item {
    Bundle(Bundle),
    /// A valid module without actions.
    Accept(usize, Source),
    /// A module that must be rejected.
    Reject(usize, Source),
    Skip(usize, &'static str),
    /// The script itself is malformed.
    Broken(usize, String),
}

/// Parses a script.
///
/// # Errors
///
/// The text is not a script.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut lexer = Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer).map_err(|error| error.to_string())?;
    let wast: Wast<'_> = parser::parse(&buffer).map_err(|error| error.to_string())?;
    let mut reader = Reader {
        text,
        ..Reader::default()
    };
    for directive in wast.directives {
        reader.add(directive);
    }
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    /// The instances, each with its line.
    instances: Vec<(usize, Instance)>,
    steps: Vec<Step>,
    items: Vec<Item>,
    /// The latest instance, or `None` if it could not be read.
    current: Option<usize>,
    named: HashMap<String, usize>,
    registered: HashMap<String, usize>,
    definitions: HashMap<String, (usize, Source, Vec<u8>)>,
    definition: Option<(usize, Source, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    fn line(&self, span: Span) -> usize {
        span.linecol_in(self.text).0 + 1
    }

    fn add(&mut self, directive: WastDirective<'a>) {
        let line = self.line(directive.span());
        match directive {
            WastDirective::Module(module) => {
                let name = module.name();
                match read(module) {
                    Ok((source, wasm)) => self.instantiate(line, name, source, wasm, None),
                    Err(error) => self.lose(line, error),
                }
            }
            WastDirective::ModuleDefinition(module) => {
                let name = module.name();
                match read(module) {
                    Ok((source, wasm)) => {
                        self.items.push(Item::Accept(line, source.clone()));
                        let definition = (line, source, wasm);
                        if let Some(name) = name {
                            let name = name.name().to_owned();
                            self.definitions.insert(name, definition.clone());
                        }
                        self.definition = Some(definition);
                    }
                    Err(error) => self.items.push(Item::Broken(line, error)),
                }
            }
            WastDirective::ModuleInstance {
                instance, module, ..
            } => {
                let definition = match module {
                    Some(module) => self.definitions.get(module.name()).cloned(),
                    None => self.definition.clone(),
                };
                match definition {
                    Some((_, source, wasm)) => {
                        self.instantiate(line, instance, source, wasm, None);
                    }
                    None => self.lose(line, "no such definition".into()),
                }
            }
            WastDirective::AssertMalformed { module, .. }
            | WastDirective::AssertInvalid { module, .. } => self.reject(line, module),
            WastDirective::Register { name, module, .. } => {
                if let Some(instance) = self.instance(module) {
                    self.registered.insert(name.to_owned(), instance);
                }
            }
            WastDirective::Invoke(invoke) => self.invoke(line, &invoke, Ok(Ending::Returned)),
            WastDirective::AssertReturn { exec, results, .. } => {
                let results = results.iter().map(Expected::new);
                let ending = results.collect::<Result<_, _>>().map(Ending::Values);
                self.execute(line, exec, ending);
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                self.execute(line, exec, Ok(Ending::Trap(Trap::of_suite(message))));
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                self.invoke(line, &call, Ok(Ending::Trap(Trap::of_suite(message))));
            }
            WastDirective::AssertException { exec, .. } => {
                self.execute(line, exec, Ok(Ending::Trap(Trap::EXCEPTION)));
            }
            WastDirective::AssertUnlinkable { .. } => self.items.push(Item::Skip(line, NO_LINKING)),
            WastDirective::Thread(_) | WastDirective::Wait { .. } => {
                self.items.push(Item::Skip(line, NO_THREADS));
            }
            WastDirective::AssertInvalidCustom { .. }
            | WastDirective::AssertMalformedCustom { .. } => {
                let reason = "asserts a fault in a custom section, which is ignored";
                self.items.push(Item::Skip(line, reason));
            }
            WastDirective::AssertSuspension { .. } => {
                self.items.push(Item::Skip(line, "needs stack switching"));
            }
        }
    }

    fn lose(&mut self, line: usize, error: String) {
        self.current = None;
        self.items.push(Item::Broken(line, error));
    }

    fn reject(&mut self, line: usize, mut module: QuoteWat<'_>) {
        self.items.push(match module.to_test() {
            Ok(QuoteWatTest::Binary(bytes)) => Item::Reject(line, Source::Binary(bytes)),
            Ok(QuoteWatTest::Text(text)) => Item::Reject(line, Source::Text(text)),
            Err(error) => Item::Broken(line, error.to_string()),
        });
    }

    fn instance(&self, name: Option<Id<'_>>) -> Option<usize> {
        match name {
            Some(name) => self.named.get(name.name()).copied(),
            None => self.current,
        }
    }

    fn execute(
        &mut self,
        line: usize,
        exec: WastExecute<'a>,
        ending: Result<Ending, &'static str>,
    ) {
        match exec {
            WastExecute::Invoke(invoke) => self.invoke(line, &invoke, ending),
            WastExecute::Get { module, global, .. } => {
                let act = Act::Get(global.to_owned());
                self.step(line, self.instance(module), Ok(act), ending);
            }
            WastExecute::Wat(module) => {
                let current = self.current;
                match read(QuoteWat::Wat(module)) {
                    Ok((source, wasm)) => {
                        self.instantiate(line, None, source, wasm, ending.ok());
                    }
                    Err(error) => self.items.push(Item::Broken(line, error)),
                }
                self.current = current;
            }
        }
    }

    fn invoke(
        &mut self,
        line: usize,
        invoke: &WastInvoke<'a>,
        ending: Result<Ending, &'static str>,
    ) {
        let arguments = invoke.args.iter().map(Argument::new);
        let arguments = arguments.collect::<Result<_, _>>();
        let act = arguments.map(|arguments| Act::Call(invoke.name.to_owned(), arguments));
        self.step(line, self.instance(invoke.module), act, ending);
    }

    fn step(
        &mut self,
        line: usize,
        instance: Option<usize>,
        act: Result<Act, &'static str>,
        ending: Result<Ending, &'static str>,
    ) {
        let Some(instance) = instance else {
            let reason = "is about a module that could not be read".to_owned();
            self.items.push(Item::Broken(line, reason));
            return;
        };
        let skipped = act.as_ref().err().or(ending.as_ref().err()).copied();
        self.steps.push(Step {
            line,
            instance,
            act: act.unwrap_or(Act::Nothing),
            ending: ending.unwrap_or(Ending::Returned),
            skipped,
        });
    }

    fn instantiate(
        &mut self,
        line: usize,
        name: Option<Id<'_>>,
        source: Source,
        wasm: Vec<u8>,
        ending: Option<Ending>,
    ) {
        let shape = match Shape::new(&wasm) {
            Ok(shape) => shape,
            Err(error) => return self.lose(line, error),
        };
        let mut imports = Vec::new();
        // Module 0 stands for `spectest`; see `bundles`.
        for (module, export, _) in &shape.imports {
            let exporter = match self.registered.get(module) {
                Some(exporter) => exporter + 1,
                None if module == spectest::NAME => 0,
                None => return self.lose(line, format!("there is no module `{module}`")),
            };
            imports.push((exporter, export.clone()));
        }
        let index = self.instances.len();
        let instance = Instance {
            source,
            wasm,
            shape,
            imports,
            is_spectest: false,
        };
        self.instances.push((line, instance));
        self.current = Some(index);
        if let Some(name) = name {
            self.named.insert(name.name().to_owned(), index);
        }
        let ending = ending.unwrap_or(Ending::Returned);
        self.step(line, Some(index), Ok(Act::Instantiate), Ok(ending));
    }

    fn finish(mut self) -> Vec<Item> {
        self.skip_what_follows();
        let mut items = std::mem::take(&mut self.items);
        items.extend(self.bundles().into_iter().map(Item::Bundle));
        items
    }

    /// A skipped directive may have changed state, so the following ones in the same bundle cannot be judged.
    fn skip_what_follows(&mut self) {
        let leaders = self.leaders();
        let mut tainted = BTreeSet::new();
        for step in &mut self.steps {
            let leader = leaders[step.instance];
            if step.skipped.is_some() {
                let shape = &self.instances[step.instance].1.shape;
                if shape.keeps_host_references || step.ending == Ending::Returned {
                    tainted.insert(leader);
                }
            } else if tainted.contains(&leader) && step.act != Act::Instantiate {
                step.skipped = Some(AFTER_SKIPPED);
            }
        }
    }

    /// For each instance, the first one of its bundle. The instances of a bundle import from each other.
    fn leaders(&self) -> Vec<usize> {
        let mut leaders: Vec<usize> = (0..self.instances.len()).collect();
        for (index, (_, instance)) in self.instances.iter().enumerate() {
            for (exporter, _) in &instance.imports {
                let Some(exporter) = exporter.checked_sub(1) else {
                    continue;
                };
                let [one, other] = [leaders[index], leaders[exporter]];
                let first = one.min(other);
                for leader in &mut leaders {
                    if *leader == one || *leader == other {
                        *leader = first;
                    }
                }
            }
        }
        leaders
    }

    fn bundles(self) -> Vec<Bundle> {
        let leaders = self.leaders();
        let mut bundles: BTreeMap<usize, Bundle> = BTreeMap::new();
        let mut places = Vec::new();
        let mut spectests: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (index, (_, instance)) in self.instances.iter().enumerate() {
            let names = instance
                .imports
                .iter()
                .filter(|(exporter, _)| *exporter == 0);
            let names: Vec<_> = names.map(|(_, name)| name.clone()).collect();
            if !names.is_empty() {
                spectests.entry(leaders[index]).or_default().extend(names);
            }
        }
        for (index, (_, mut instance)) in self.instances.into_iter().enumerate() {
            let leader = leaders[index];
            let bundle = bundles.entry(leader).or_default();
            if bundle.instances.is_empty()
                && let Some(names) = spectests.get(&leader)
            {
                bundle.instances.push(spectest_instance(names));
            }
            for (exporter, _) in &mut instance.imports {
                *exporter = match exporter.checked_sub(1) {
                    Some(exporter) => places[exporter],
                    None => 0,
                };
            }
            places.push(bundle.instances.len());
            bundle.instances.push(instance);
        }
        for mut step in self.steps {
            let bundle = bundles.entry(leaders[step.instance]).or_default();
            step.instance = places[step.instance];
            bundle.steps.push(step);
        }
        bundles.into_values().collect()
    }
}

fn spectest_instance(names: &BTreeSet<String>) -> Instance {
    let wasm = spectest::module(&names.iter().map(String::as_str).collect());
    Instance {
        source: Source::Binary(wasm.clone()),
        shape: Shape::new(&wasm).expect("it is valid"),
        wasm,
        imports: Vec::new(),
        is_spectest: true,
    }
}

/// A module as in the script, and in binary format.
fn read(mut module: QuoteWat<'_>) -> Result<(Source, Vec<u8>), String> {
    let source = match module.to_test() {
        Ok(QuoteWatTest::Binary(bytes)) => Source::Binary(bytes),
        Ok(QuoteWatTest::Text(text)) => Source::Text(text),
        Err(error) => return Err(error.to_string()),
    };
    let wasm = match &source {
        Source::Binary(bytes) => bytes.clone(),
        Source::Text(text) => wat::parse_bytes(text)
            .map_err(|error| error.to_string())?
            .into_owned(),
    };
    Ok((source, wasm))
}
