//! The examples: realistic functions, checked by their output.

use std::io::Cursor;

use crate::container::Container;
use crate::engine::{FunctionImage, templates, toolchain_image};

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// A PNG image whose left half is red and whose right half is blue.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let row = (0..width).flat_map(|x| if x < width / 2 { RED } else { BLUE });
    let row: Vec<u8> = row.collect();
    let mut writer = encoder.write_header().expect("the header is right");
    writer
        .write_image_data(&row.repeat(height as usize))
        .expect("the size is right");
    writer.finish().expect("it can be written");
    file
}

#[test]
fn images_are_resized() {
    let Some(rust) = toolchain_image("rust", "resize-image") else {
        return;
    };
    let image = FunctionImage::new("rust-wasm", "resize-image")
        .handler(templates("examples/resize-image"))
        .argument(format!("TOOLCHAIN_IMAGE={rust}"))
        .argument("BUILD_FLAGS=--backend cranelift")
        .build();
    let container = Container::start(&image);

    let answer = container.post("/?width=80&height=80", picture(640, 320));
    assert_eq!(
        (answer.status, answer.header("Content-Type")),
        (200, Some("image/png")),
        "{}",
        container.logs()
    );
    let decoder = png::Decoder::new(Cursor::new(answer.body));
    let mut reader = decoder.read_info().expect("the answer is a PNG");
    let size = reader.output_buffer_size().expect("it is small");
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).expect("it can be decoded");
    assert_eq!((frame.width, frame.height), (80, 40));
    assert_eq!(frame.color_type, png::ColorType::Rgb);
    let pixel = |x: usize, y: usize| &pixels[(y * 80 + x) * 3..][..3];
    assert_eq!((pixel(5, 20), pixel(75, 20)), (&RED[..], &BLUE[..]));

    assert_eq!(container.post("/", "no picture").status, 415);
    assert_eq!(container.post("/?width=0", picture(2, 2)).status, 400);
    container.is_confined_and_healthy();
    container.ends_well();
}
