//! The part of the font that a PDF needs, with the characters of its glyphs, so that text can be searched and copied.

use miniz_oxide::deflate::compress_to_vec_zlib;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Filter, Finish as _, Name, Pdf, Rect, Ref, Str};
use subsetter::GlyphRemapper;

use crate::plot::font;
use crate::plot::pdf::COMPRESSION_LEVEL;
use crate::plot::scene::{Mark, Scene};

/// The font's name within the page.
pub(super) const NAME: Name<'static> = Name(b"F1");
/// Number of objects that the font takes.
pub(super) const OBJECTS: i32 = 5;

const FONT_NAME: &str = "DejaVuSans";
const IDENTITY: SystemInfo<'static> = SystemInfo {
    registry: Str(b"Adobe"),
    ordering: Str(b"Identity"),
    supplement: 0,
};

/// The glyphs of a picture's texts, in the order of their first use.
pub(super) struct FontSubset {
    remapper: GlyphRemapper,
    characters: Vec<(u16, char)>,
    file: Vec<u8>,
}

impl FontSubset {
    /// Collects the glyphs of a scene.
    ///
    /// # Errors
    /// The font cannot be reduced.
    pub(super) fn new(scene: &Scene) -> Result<Self, String> {
        let mut remapper = GlyphRemapper::new();
        let mut characters = Vec::new();
        for mark in &scene.marks {
            let Mark::Text(text) = mark else { continue };
            for c in text.text.chars() {
                let glyph = font::face().glyph_index(c).map_or(0, |glyph| glyph.0);
                let new = remapper.remap(glyph);
                if !characters.iter().any(|(known, _)| *known == new) {
                    characters.push((new, c));
                }
            }
        }

        let file = subsetter::subset(font::font_file(), 0, &remapper)
            .map_err(|e| format!("the font cannot be put into the PDF: {e}"))?;
        Ok(Self {
            remapper,
            characters,
            file,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.characters.is_empty()
    }

    /// The text as numbers of glyphs, two bytes each.
    pub(super) fn encode_text(&self, text: &str) -> Vec<u8> {
        text.chars()
            .flat_map(|c| {
                let glyph = font::face().glyph_index(c).map_or(0, |glyph| glyph.0);
                self.remapper.get(glyph).unwrap_or(0).to_be_bytes()
            })
            .collect()
    }

    /// Writes the objects of the font, [`OBJECTS`] from `first` on.
    pub(super) fn write_objects(&self, pdf: &mut Pdf, first: i32) {
        if self.is_empty() {
            return;
        }

        let [font_object, cid_object, descriptor, to_unicode, file_object] =
            [0, 1, 2, 3, 4].map(|at| Ref::new(first + at));
        let name = self.subset_name();
        pdf.type0_font(font_object)
            .base_font(Name(name.as_bytes()))
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(cid_object)
            .to_unicode(to_unicode);

        self.write_widths(pdf, cid_object, descriptor, &name);
        write_descriptor(pdf, descriptor, file_object, &name);

        let mut map = UnicodeCmap::new(Name(b"Custom"), IDENTITY);
        for (glyph, c) in &self.characters {
            map.pair(*glyph, *c);
        }
        let map = compress_to_vec_zlib(&map.finish(), COMPRESSION_LEVEL);
        pdf.stream(to_unicode, &map).filter(Filter::FlateDecode);

        let file = compress_to_vec_zlib(&self.file, COMPRESSION_LEVEL);
        let mut stream = pdf.stream(file_object, &file);
        stream.filter(Filter::FlateDecode);
        stream.pair(
            Name(b"Length1"),
            i32::try_from(self.file.len()).unwrap_or(i32::MAX),
        );
    }

    fn write_widths(&self, pdf: &mut Pdf, object: Ref, descriptor: Ref, name: &str) {
        let advance = |glyph: u16| {
            let glyph = ttf_parser::GlyphId(glyph);
            to_thousandths(f64::from(
                font::face().glyph_hor_advance(glyph).unwrap_or(0),
            ))
        };
        let mut font = pdf.cid_font(object);
        font.subtype(CidFontType::Type2)
            .base_font(Name(name.as_bytes()))
            .system_info(IDENTITY)
            .font_descriptor(descriptor)
            .default_width(0.0)
            .cid_to_gid_map_predefined(Name(b"Identity"));
        font.widths()
            .consecutive(0, self.remapper.remapped_gids().map(advance));
        font.finish();
    }

    /// The font's name with six letters that differ between subsets, as PDF asks for.
    fn subset_name(&self) -> String {
        let glyphs: Vec<u8> = self
            .remapper
            .remapped_gids()
            .flat_map(u16::to_be_bytes)
            .collect();
        let hash = blake3::hash(&glyphs);
        let tag: String = hash.as_bytes()[..6]
            .iter()
            .map(|byte| char::from(b'A' + byte % 26))
            .collect();
        format!("{tag}+{FONT_NAME}")
    }
}

fn write_descriptor(pdf: &mut Pdf, object: Ref, file: Ref, name: &str) {
    let face = font::face();
    let [left, low, right, high] = {
        let bounds = face.global_bounding_box();
        [bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max]
            .map(|x| to_thousandths(f64::from(x)))
    };

    pdf.font_descriptor(object)
        .name(Name(name.as_bytes()))
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(left, low, right, high))
        .italic_angle(0.0)
        .ascent(to_thousandths(f64::from(face.ascender())))
        .descent(to_thousandths(f64::from(face.descender())))
        .cap_height(to_thousandths(f64::from(
            face.capital_height().unwrap_or_else(|| face.ascender()),
        )))
        .stem_v(80.0)
        .font_file2(file);
}

/// A measure of the font in thousandths of its size.
fn to_thousandths(x: f64) -> f32 {
    libm::round(x * 1000.0 / f64::from(font::face().units_per_em())) as f32
}
