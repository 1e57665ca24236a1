//! Expressions compiled to steps over a stack.

use super::truth_value;

/// Maximum depth of a stack that needs no allocation.
const INLINE_STACK: usize = 32;

/// The relation of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
}

impl Relation {
    /// Returns 1 if the relation holds and 0 if not; NaN if a value is undefined.
    fn compare_values(self, a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() {
            return f64::NAN;
        }

        truth_value(match self {
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Equal => a == b,
            Self::Unequal => a != b,
        })
    }
}

/// Whether both are true. A single false one decides, even if the other is undefined.
pub(super) fn logical_and(a: f64, b: f64) -> f64 {
    match a == 0.0 || b == 0.0 {
        true => 0.0,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => 1.0,
    }
}

/// Whether at least one is true. A single true one decides, even if the other is undefined.
pub(super) fn logical_or(a: f64, b: f64) -> f64 {
    let is_true = |x: f64| x != 0.0 && !x.is_nan();
    match is_true(a) || is_true(b) {
        true => 1.0,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => 0.0,
    }
}

/// A step of an expression.
#[derive(Debug, Clone, Copy)]
pub(super) enum StackStep {
    /// Pushes a number.
    Number(f64),
    /// Pushes the value of the name at this index.
    Name(usize),
    /// Replaces the number on top by the function of it.
    Unary(fn(f64) -> f64),
    /// Replaces the two numbers on top by the function of them.
    Binary(fn(f64, f64) -> f64),
    /// Begins a chain: replaces a and b on top by the truth of their comparison and b.
    BeginChain(Relation),
    /// Continues a chain: replaces a truth, a and b on top by whether the truth and the comparison
    /// of a and b hold, and b.
    ContinueChain(Relation),
    /// Ends a chain: pops its last number, so that the truth is on top.
    EndChain,
}

/// The value of a name at several samples.
#[derive(Debug, Clone, Copy)]
pub enum SeriesInput<'a> {
    /// The same number at each.
    Number(f64),
    /// One number for each.
    Series(&'a [f64]),
}

impl SeriesInput<'_> {
    pub(super) fn at_sample(self, sample: usize) -> f64 {
        match self {
            Self::Number(x) => x,
            Self::Series(values) => values[sample],
        }
    }
}

/// An expression as a list of steps.
#[derive(Debug, Clone)]
pub(super) struct StackCode {
    names: Vec<String>,
    steps: Vec<StackStep>,
    depth: usize,
    is_condition: bool,
}

impl StackCode {
    /// An expression of these steps, which refer to `names` by index in the order of first
    /// appearance.
    pub(super) fn new(names: Vec<String>, steps: Vec<StackStep>, is_condition: bool) -> Self {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let steps: Vec<StackStep> = steps
            .into_iter()
            .map(|step| match step {
                StackStep::Name(at) => StackStep::Name(
                    sorted
                        .binary_search(&names[at])
                        .expect("the same names are in both lists"),
                ),
                other => other,
            })
            .collect();
        let depth = stack_depth(&steps);

        Self {
            names: sorted,
            steps,
            depth,
            is_condition,
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    pub(super) fn is_condition(&self) -> bool {
        self.is_condition
    }

    pub(super) fn evaluation_cost(&self) -> u64 {
        self.steps.len() as u64
    }

    pub(super) fn eval(&self, values: &[f64]) -> f64 {
        if self.depth <= INLINE_STACK {
            self.run_steps(&mut [0.0; INLINE_STACK], values)
        } else {
            self.run_steps(&mut vec![0.0; self.depth], values)
        }
    }

    fn run_steps(&self, stack: &mut [f64], values: &[f64]) -> f64 {
        let mut top = 0;
        for step in &self.steps {
            match *step {
                StackStep::Number(x) => {
                    stack[top] = x;
                    top += 1;
                }
                StackStep::Name(at) => {
                    stack[top] = values.get(at).copied().unwrap_or(f64::NAN);
                    top += 1;
                }
                StackStep::Unary(apply) => stack[top - 1] = apply(stack[top - 1]),
                StackStep::Binary(apply) => {
                    top -= 1;
                    stack[top - 1] = apply(stack[top - 1], stack[top]);
                }
                StackStep::BeginChain(relation) => {
                    let a = stack[top - 2];
                    let b = stack[top - 1];
                    stack[top - 2] = relation.compare_values(a, b);
                }
                StackStep::ContinueChain(relation) => {
                    top -= 1;
                    let a = stack[top - 1];
                    let b = stack[top];
                    stack[top - 2] = logical_and(stack[top - 2], relation.compare_values(a, b));
                    stack[top - 1] = b;
                }
                StackStep::EndChain => top -= 1,
            }
        }

        stack[0]
    }
}

impl StackCode {
    /// The values at each of `length` samples. Each step is taken for all samples before the next one.
    pub(super) fn eval_series(&self, inputs: &[SeriesInput<'_>], length: usize) -> Vec<f64> {
        let mut columns = vec![vec![0.0; length]; self.depth.max(1)];
        let mut top = 0;
        for step in &self.steps {
            match *step {
                StackStep::Number(x) => columns[top].fill(x),
                StackStep::Name(at) => match inputs.get(at) {
                    Some(SeriesInput::Number(x)) => columns[top].fill(*x),
                    Some(SeriesInput::Series(values)) => columns[top].copy_from_slice(values),
                    None => columns[top].fill(f64::NAN),
                },
                StackStep::Unary(apply) => {
                    columns[top - 1].iter_mut().for_each(|x| *x = apply(*x));
                }
                StackStep::Binary(apply) => apply_to_pairs(&mut columns, top - 2, apply),
                StackStep::BeginChain(relation) => {
                    apply_to_pairs(&mut columns, top - 2, |a, b| relation.compare_values(a, b));
                }
                StackStep::ContinueChain(relation) => {
                    apply_to_pairs(&mut columns, top - 2, |a, b| relation.compare_values(a, b));
                    apply_to_pairs(&mut columns, top - 3, logical_and);
                    columns.swap(top - 2, top - 1);
                }
                StackStep::EndChain => {}
            }
            top = step.move_top(top);
        }

        columns.swap_remove(0)
    }
}

/// Replaces each number of the column `at` by a function of it and of that in the next column.
fn apply_to_pairs(columns: &mut [Vec<f64>], at: usize, apply: impl Fn(f64, f64) -> f64) {
    let [a, b] = &mut columns[at..at + 2] else {
        return;
    };
    a.iter_mut().zip(b).for_each(|(a, b)| *a = apply(*a, *b));
}

impl StackStep {
    /// The number of values on the stack after the step, given that before it.
    fn move_top(&self, top: usize) -> usize {
        match self {
            Self::Number(_) | Self::Name(_) => top + 1,
            Self::Unary(_) | Self::BeginChain(_) => top,
            Self::Binary(_) | Self::ContinueChain(_) | Self::EndChain => top - 1,
        }
    }
}

/// Maximum number of values on the stack.
fn stack_depth(steps: &[StackStep]) -> usize {
    let mut now = 0;
    let mut most = 0;

    for step in steps {
        now = step.move_top(now);
        most = most.max(now);
    }

    most
}
