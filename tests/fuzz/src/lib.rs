//! Code that several fuzz targets share.

/// Length of a repeated input in bytes: quadratic work takes minutes at this length.
const LONG: usize = 4 << 20;

/// Repeats one input in 1024 up to a length at which superlinear work exceeds the time limit.
pub fn repeated(bytes: &[u8]) -> Option<Vec<u8>> {
    // FNV-1a, because the same inputs must be chosen in each run.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 54 == 0 && !bytes.is_empty()).then(|| {
        let whole = bytes.iter().copied().cycle();
        whole.take(LONG).collect()
    })
}
