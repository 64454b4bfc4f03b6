//! BGRX to I420, BT.601 limited range: browsers paint frames tagged so without a shift in colour.

/// Luma of a row of pixels; `luma` is as long as the row.
pub(crate) fn luma_row(bgrx: &[u8], luma: &mut [u8]) {
    for (pixel, y) in bgrx.as_chunks::<4>().0.iter().zip(luma) {
        *y = luma_of(pixel);
    }
}

/// Chroma of two rows of pixels: one value a 2x2 cell. An odd last column stands for itself twice.
pub(crate) fn chroma_row(upper: &[u8], lower: &[u8], u: &mut [u8], v: &mut [u8]) {
    let (upper, upper_rest) = upper.as_chunks::<8>();
    let (lower, lower_rest) = lower.as_chunks::<8>();
    let whole = upper.len().min(lower.len());
    for (((top, bottom), u), v) in upper.iter().zip(lower).zip(&mut *u).zip(&mut *v) {
        let sum = |channel: usize| {
            i32::from(top[channel])
                + i32::from(top[channel + 4])
                + i32::from(bottom[channel])
                + i32::from(bottom[channel + 4])
        };
        (*u, *v) = chroma(sum(0), sum(1), sum(2));
    }
    if let ([tb, tg, tr, _], [bb, bg, br, _]) = (upper_rest, lower_rest)
        && let (Some(u), Some(v)) = (u.get_mut(whole), v.get_mut(whole))
    {
        let sum = |top: &u8, bottom: &u8| 2 * (i32::from(*top) + i32::from(*bottom));
        (*u, *v) = chroma(sum(tb, bb), sum(tg, bg), sum(tr, br));
    }
}

fn luma_of(pixel: &[u8; 4]) -> u8 {
    let [b, g, r, _] = pixel.map(i32::from);
    narrow(((66 * r + 129 * g + 25 * b + 128) >> 8) + 16)
}

/// Chroma of one colour.
pub(crate) fn chroma_of(red: u8, green: u8, blue: u8) -> (u8, u8) {
    chroma(4 * i32::from(blue), 4 * i32::from(green), 4 * i32::from(red))
}

/// Takes sums over the four pixels of a cell.
fn chroma(b: i32, g: i32, r: i32) -> (u8, u8) {
    let u = ((-38 * r - 74 * g + 112 * b + 512) >> 10) + 128;
    let v = ((112 * r - 94 * g - 18 * b + 512) >> 10) + 128;
    (narrow(u), narrow(v))
}

#[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
fn narrow(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_have_their_bt601_values() {
        for (bgr, yuv) in [
            ([0, 0, 0], [16, 128, 128]),
            ([255, 255, 255], [235, 128, 128]),
            ([0, 0, 255], [82, 90, 240]),
            ([255, 0, 0], [41, 240, 110]),
            ([0, 255, 0], [144, 54, 34]),
        ] {
            let pixel = [bgr[0], bgr[1], bgr[2], 0];
            let row = [pixel, pixel].concat();
            let (mut y, mut u, mut v) = ([0; 2], [0; 1], [0; 1]);
            luma_row(&row, &mut y);
            chroma_row(&row, &row, &mut u, &mut v);
            for (got, wanted) in [y[0], u[0], v[0]].into_iter().zip(yuv) {
                assert!(i32::from(got).abs_diff(wanted) <= 1, "{bgr:?}: {:?}", [y[0], u[0], v[0]]);
            }
        }
    }

    #[test]
    fn an_odd_column_stands_for_itself() {
        let row = [0, 0, 255, 0];
        let (mut u, mut v) = ([0; 1], [0; 1]);
        chroma_row(&row, &row, &mut u, &mut v);
        assert_eq!((u[0], v[0]), chroma(0, 0, 4 * 255));
    }
}
