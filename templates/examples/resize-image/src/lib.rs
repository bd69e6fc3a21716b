//! Shrinks images: the request's body is a PNG or JPEG image, and the response is the same image in the
//! same format, scaled to fit `width` and `height` from the query (256 each by default).

use std::error::Error;
use std::io::Cursor;

use http::{Request, Response, StatusCode};
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};

/// The size if the query has none.
const DEFAULT_SIZE: u32 = 256;
/// Maximum side of an image, before and after. A small body can claim to be a huge image.
const MAX_SIZE: u32 = 8192;
/// Memory for a decoded image; the template gives the function 256 MiB.
const MAX_ALLOCATION: u64 = 96 << 20;

/// Why a request gets no image. The client receives this.
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { status, reason }
    }
}

/// The function.
pub fn handle(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Box<dyn Error>> {
    let response = match resize(&request) {
        Ok((format, picture)) => Response::builder()
            .header("Content-Type", format.to_mime_type())
            .body(picture)?,
        Err(refusal) => Response::builder()
            .status(refusal.status)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(format!("{}\n", refusal.reason).into())?,
    };
    Ok(response)
}

fn resize(request: &Request<Vec<u8>>) -> Result<(ImageFormat, Vec<u8>), Refusal> {
    if request.method() != "POST" {
        let reason = "send a picture with POST";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    }
    let (width, height) = size(request.uri().query().unwrap_or_default())?;
    let (format, picture) = decode(request.body())?;
    let smaller = if picture.width() > width || picture.height() > height {
        picture.thumbnail(width, height)
    } else {
        picture
    };
    let mut encoded = Cursor::new(Vec::new());
    smaller
        .write_to(&mut encoded, format)
        .map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    Ok((format, encoded.into_inner()))
}

/// Width and height from the query.
fn size(query: &str) -> Result<(u32, u32), Refusal> {
    let (mut width, mut height) = (DEFAULT_SIZE, DEFAULT_SIZE);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let target = match name {
            "width" => &mut width,
            "height" => &mut height,
            _ => continue,
        };
        *target = match value.parse() {
            Ok(size @ 1..=MAX_SIZE) => size,
            _ => {
                let reason = format!("{name} must be a number from 1 to {MAX_SIZE}");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
            }
        };
    }
    Ok((width, height))
}

fn decode(bytes: &[u8]) -> Result<(ImageFormat, DynamicImage), Refusal> {
    let unsupported = || {
        let reason = "the body is neither a PNG nor a JPEG";
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason)
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|_| unsupported())?;
    let format = reader.format().ok_or_else(unsupported)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIZE);
    limits.max_image_height = Some(MAX_SIZE);
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| match error {
        ImageError::Limits(_) => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the picture is too large")
        }
        ImageError::Unsupported(_) => unsupported(),
        error => Refusal::new(StatusCode::BAD_REQUEST, error.to_string()),
    })?;
    Ok((format, picture))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GenericImageView as _, Rgb, RgbImage};

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        // Left half red, right half blue.
        let picture = RgbImage::from_fn(width, height, |x, _| {
            if x < width / 2 {
                Rgb([255, 0, 0])
            } else {
                Rgb([0, 0, 255])
            }
        });
        let mut encoded = Cursor::new(Vec::new());
        picture.write_to(&mut encoded, format).unwrap();
        encoded.into_inner()
    }

    fn post(target: &str, body: Vec<u8>) -> Response<Vec<u8>> {
        let request = Request::post(target).body(body).unwrap();
        handle(request).unwrap()
    }

    #[test]
    fn pictures_keep_format_shape_and_colors() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let response = post("/?width=40&height=40", picture(200, 100, format));
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["Content-Type"], format.to_mime_type());
            let smaller = image::load_from_memory_with_format(response.body(), format).unwrap();
            assert_eq!(smaller.dimensions(), (40, 20));
            for (x, strong) in [(4, 0), (35, 2)] {
                let pixel = smaller.to_rgb8().get_pixel(x, 10).0;
                assert!(pixel[strong] > 200 && pixel[2 - strong] < 50, "{pixel:?}");
            }
        }
    }

    #[test]
    fn small_pictures_stay_as_large_as_they_are() {
        let response = post("/", picture(30, 20, ImageFormat::Png));
        let same = image::load_from_memory(response.body()).unwrap();
        assert_eq!(same.dimensions(), (30, 20));
    }

    #[test]
    fn says_what_is_wrong() {
        let png = picture(10, 10, ImageFormat::Png);
        for (target, body, status) in [
            ("/?width=0", png.clone(), 400),
            ("/?height=many", png.clone(), 400),
            ("/", b"GIF89a".to_vec(), 415),
            ("/", Vec::new(), 415),
            ("/", png[..png.len() / 2].to_vec(), 400),
        ] {
            assert_eq!(post(target, body).status(), status, "{target}");
        }
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused() {
        let mut png = picture(10, 10, ImageFormat::Png);
        // Forge width and height in the header, and fix the header's checksum.
        png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let sum = png[12..29].iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 & (0_u32.wrapping_sub(sum & 1)))
            })
        });
        png[29..33].copy_from_slice(&(!sum).to_be_bytes());
        assert_eq!(post("/", png).status(), 413);
    }
}
