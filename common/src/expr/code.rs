//! An expression as a list of steps over a stack.

use super::truth;

/// Deepest stack that needs no allocation.
const STACK: usize = 32;

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
    /// 1 or 0; of what has no value, none is known.
    fn of(self, a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() {
            return f64::NAN;
        }
        truth(match self {
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Equal => a == b,
            Self::Unequal => a != b,
        })
    }
}

/// Whether both are true: that is known where one is false, whatever the other one may be.
pub(super) fn both(a: f64, b: f64) -> f64 {
    match a == 0.0 || b == 0.0 {
        true => 0.0,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => 1.0,
    }
}

/// Whether one or both are true: that is known where one is, whatever the other one may be.
pub(super) fn either(a: f64, b: f64) -> f64 {
    let is_true = |x: f64| x != 0.0 && !x.is_nan();
    match is_true(a) || is_true(b) {
        true => 1.0,
        false if a.is_nan() || b.is_nan() => f64::NAN,
        false => 0.0,
    }
}

/// A step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Puts a number on the stack.
    Number(f64),
    /// Puts the value of the name at this place on the stack.
    Name(usize),
    /// Replaces the number on top.
    Unary(fn(f64) -> f64),
    /// Replaces the two numbers on top.
    Binary(fn(f64, f64) -> f64),
    /// Begins a chain: of a and b on top leaves whether they compare so, and b.
    Begin(Relation),
    /// Goes on with it: of a truth, a and b on top leaves whether it is true and they compare so, and b.
    GoOn(Relation),
    /// Takes the last number of a chain off, so that its truth is on top.
    End,
}

/// The steps of an expression.
#[derive(Debug, Clone)]
pub(super) struct Code {
    names: Vec<String>,
    steps: Vec<Step>,
    depth: usize,
    is_condition: bool,
}

impl Code {
    /// An expression of these steps, whose names are numbered in the order in which they appeared first.
    pub(super) fn new(names: Vec<String>, steps: Vec<Step>, is_condition: bool) -> Self {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let place = |at: usize| sorted.binary_search(&names[at]).expect("the same names are in both lists");
        let renamed = |step: &Step| if let Step::Name(at) = step { Step::Name(place(*at)) } else { *step };
        let steps: Vec<Step> = steps.iter().map(renamed).collect();
        let depth = depth(&steps);
        Self { names: sorted, steps, depth, is_condition }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    pub(super) fn is_condition(&self) -> bool {
        self.is_condition
    }

    pub(super) fn cost(&self) -> u64 {
        self.steps.len() as u64
    }

    pub(super) fn eval(&self, values: &[f64]) -> f64 {
        if self.depth <= STACK {
            self.run(&mut [0.0; STACK], values)
        } else {
            self.run(&mut vec![0.0; self.depth], values)
        }
    }

    fn run(&self, stack: &mut [f64], values: &[f64]) -> f64 {
        let mut top = 0;
        for step in &self.steps {
            match *step {
                Step::Number(x) => {
                    stack[top] = x;
                    top += 1;
                }
                Step::Name(at) => {
                    stack[top] = values.get(at).copied().unwrap_or(f64::NAN);
                    top += 1;
                }
                Step::Unary(apply) => stack[top - 1] = apply(stack[top - 1]),
                Step::Binary(apply) => {
                    top -= 1;
                    stack[top - 1] = apply(stack[top - 1], stack[top]);
                }
                Step::Begin(relation) => {
                    let (a, b) = (stack[top - 2], stack[top - 1]);
                    stack[top - 2] = relation.of(a, b);
                }
                Step::GoOn(relation) => {
                    top -= 1;
                    let (a, b) = (stack[top - 1], stack[top]);
                    stack[top - 2] = both(stack[top - 2], relation.of(a, b));
                    stack[top - 1] = b;
                }
                Step::End => top -= 1,
            }
        }
        stack[0]
    }
}

/// How many numbers are on the stack at most.
fn depth(steps: &[Step]) -> usize {
    let (mut now, mut most) = (0, 0);
    for step in steps {
        match step {
            Step::Number(_) | Step::Name(_) => now += 1,
            Step::Unary(_) | Step::Begin(_) => {}
            Step::Binary(_) | Step::GoOn(_) | Step::End => now -= 1,
        }
        most = most.max(now);
    }
    most
}
