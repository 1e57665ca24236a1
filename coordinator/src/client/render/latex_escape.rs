//! Text as LaTeX prints it.

use std::fmt::Write as _;

use ergodic_common::escape::escape_line;

/// Escapes characters that are special to TeX, so that the text looks the same in any encoding of the fonts.
pub(super) fn escape_latex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape_line(text).chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            // Typed as it is, it may be a command of the document's language.
            '"' => out.push_str("\\texttt{\\char34}"),
            // At the start of a row, these would be arguments of the rule or the line break before it.
            '[' | ']' | '*' => {
                let _ = write!(out, "{{{c}}}");
            }
            // Two in a row would become one character.
            '-' | '\'' | '`' | ',' if out.ends_with(c) => {
                let _ = write!(out, "{{}}{c}");
            }
            c => match math_symbol(c) {
                Some(symbol) => {
                    let _ = write!(out, "${symbol}$");
                }
                None => out.push(c),
            },
        }
    }

    out
}

/// Characters of which text fonts have no glyph, and their commands.
const MATH_SYMBOLS: [(char, &str); 66] = [
    ('≈', "\\approx"),
    ('×', "\\times"),
    ('±', "\\pm"),
    ('−', "-"),
    ('≤', "\\leq"),
    ('≥', "\\geq"),
    ('≠', "\\neq"),
    ('∞', "\\infty"),
    ('∈', "\\in"),
    ('∼', "\\sim"),
    ('∇', "\\nabla"),
    ('∂', "\\partial"),
    ('→', "\\to"),
    ('←', "\\gets"),
    ('↑', "\\uparrow"),
    ('↓', "\\downarrow"),
    ('«', "\\ll"),
    ('»', "\\gg"),
    ('ℓ', "\\ell"),
    ('α', "\\alpha"),
    ('β', "\\beta"),
    ('γ', "\\gamma"),
    ('δ', "\\delta"),
    ('ε', "\\varepsilon"),
    ('ϵ', "\\epsilon"),
    ('ζ', "\\zeta"),
    ('η', "\\eta"),
    ('θ', "\\theta"),
    ('ι', "\\iota"),
    ('κ', "\\kappa"),
    ('λ', "\\lambda"),
    ('μ', "\\mu"),
    ('µ', "\\mu"),
    ('ν', "\\nu"),
    ('ξ', "\\xi"),
    ('π', "\\pi"),
    ('ρ', "\\rho"),
    ('ς', "\\varsigma"),
    ('σ', "\\sigma"),
    ('τ', "\\tau"),
    ('υ', "\\upsilon"),
    ('φ', "\\varphi"),
    ('ϕ', "\\phi"),
    ('χ', "\\chi"),
    ('ψ', "\\psi"),
    ('ω', "\\omega"),
    ('Γ', "\\Gamma"),
    ('Δ', "\\Delta"),
    ('Θ', "\\Theta"),
    ('Λ', "\\Lambda"),
    ('Ξ', "\\Xi"),
    ('Π', "\\Pi"),
    ('Σ', "\\Sigma"),
    ('Υ', "\\Upsilon"),
    ('Φ', "\\Phi"),
    ('Ψ', "\\Psi"),
    ('Ω', "\\Omega"),
    ('₀', "_0"),
    ('₁', "_1"),
    ('₂', "_2"),
    ('₃', "_3"),
    ('₄', "_4"),
    ('₅', "_5"),
    ('⁴', "^4"),
    ('⁵', "^5"),
    ('⁻', "^-"),
];

/// The command for a character of which text fonts have no glyph.
fn math_symbol(c: char) -> Option<&'static str> {
    MATH_SYMBOLS
        .iter()
        .find(|(symbol, _)| *symbol == c)
        .map(|(_, command)| *command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_printed_as_itself() {
        for (text, escaped) in [
            ("a_b & 50 % #1 $", "a\\_b \\& 50 \\% \\#1 \\$"),
            (
                "\\~^",
                "\\textbackslash{}\\textasciitilde{}\\textasciicircum{}",
            ),
            (
                "<|>\"",
                "\\textless{}\\textbar{}\\textgreater{}\\texttt{\\char34}",
            ),
            ("[*]", "{[}{*}{]}"),
            ("a--b---c", "a-{}-b-{}-{}-c"),
            ("''``,,", "'{}'`{}`,{},"),
            ("λ₁ ≠ Ω", "$\\lambda$$_1$ $\\neq$ $\\Omega$"),
        ] {
            assert_eq!(escape_latex(text), escaped);
        }
    }

    #[test]
    fn no_symbol_is_listed_twice() {
        for (at, (symbol, command)) in MATH_SYMBOLS.iter().enumerate() {
            assert_eq!(math_symbol(*symbol), Some(*command), "{at}");
        }
    }
}
