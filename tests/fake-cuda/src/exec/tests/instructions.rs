//! Tests each instruction by its results.

use super::*;

#[test]
fn integers() {
    check(&[
        ("add.s32 %r0, %r1, %r2;", "%r0", [M1, 2, 0], 1),
        ("add.u64 %d0, %d1, %d2;", "%d0", [u64::MAX, 2, 0], 1),
        ("add.s16 %h0, %h1, %h2;", "%h0", [0xffff, 2, 0], 1),
        (
            "add.sat.s32 %r0, %r1, %r2;",
            "%r0",
            [0x7fff_ffff, 2, 0],
            0x7fff_ffff,
        ),
        (
            "sub.sat.s32 %r0, %r1, %r2;",
            "%r0",
            [0x8000_0000, 2, 0],
            0x8000_0000,
        ),
        ("sub.u32 %r0, %r1, %r2;", "%r0", [1, 2, 0], M1),
        ("sub.s64 %d0, %d1, 5;", "%d0", [1, 0, 0], -4i64 as u64),
        ("mul.lo.s32 %r0, %r1, %r2;", "%r0", [M1, 3, 0], 0xffff_fffd),
        ("mul.hi.u32 %r0, %r1, %r2;", "%r0", [M1, M1, 0], 0xffff_fffe),
        ("mul.hi.s32 %r0, %r1, %r2;", "%r0", [M1, M1, 0], 0),
        (
            "mul.wide.s32 %d0, %r1, %r2;",
            "%d0",
            [M1, 4, 0],
            -4i64 as u64,
        ),
        (
            "mul.wide.u32 %d0, %r1, %r2;",
            "%d0",
            [M1, 4, 0],
            0x3_ffff_fffc,
        ),
        (
            "mul.wide.u16 %r0, %h1, %h2;",
            "%r0",
            [0xffff, 0xffff, 0],
            0xfffe_0001,
        ),
        (
            "mul.hi.u64 %d0, %d1, %d2;",
            "%d0",
            [u64::MAX, u64::MAX, 0],
            u64::MAX - 1,
        ),
        (
            "mul.hi.s64 %d0, %d1, %d2;",
            "%d0",
            [u64::MAX, 5, 0],
            u64::MAX,
        ),
        ("mul.lo.s64 %d0, %d1, %d2;", "%d0", [1 << 63, 3, 0], 1 << 63),
        ("mad.lo.s32 %r0, %r1, %r2, %r3;", "%r0", [5, 6, 7], 37),
        ("mad.lo.u64 %d0, %d1, %d2, %d3;", "%d0", [5, 6, 7], 37),
        (
            "mad.wide.s32 %d0, %r1, %r2, %d3;",
            "%d0",
            [M1, 4, 1 << 40],
            (1 << 40) - 4,
        ),
        ("mad.hi.u32 %r0, %r1, %r2, %r3;", "%r0", [M1, M1, 3], 1),
        (
            "div.s32 %r0, %r1, %r2;",
            "%r0",
            [-7i32 as u32 as u64, 2, 0],
            -3i32 as u32 as u64,
        ),
        ("div.u32 %r0, %r1, %r2;", "%r0", [M1, 2, 0], 0x7fff_ffff),
        ("div.u32 %r0, %r1, %r2;", "%r0", [5, 0, 0], M1),
        (
            "div.s32 %r0, %r1, %r2;",
            "%r0",
            [0x8000_0000, M1, 0],
            0x8000_0000,
        ),
        (
            "rem.s32 %r0, %r1, %r2;",
            "%r0",
            [-7i32 as u32 as u64, 2, 0],
            M1,
        ),
        ("rem.u64 %d0, %d1, %d2;", "%d0", [u64::MAX, 10, 0], 5),
        ("rem.u32 %r0, %r1, %r2;", "%r0", [5, 0, 0], 5),
        ("min.s32 %r0, %r1, %r2;", "%r0", [M1, 1, 0], M1),
        ("min.u32 %r0, %r1, %r2;", "%r0", [M1, 1, 0], 1),
        ("max.s64 %d0, %d1, %d2;", "%d0", [u64::MAX, 1, 0], 1),
        ("max.u64 %d0, %d1, %d2;", "%d0", [u64::MAX, 1, 0], u64::MAX),
        ("neg.s32 %r0, %r1;", "%r0", [5, 0, 0], 0xffff_fffb),
        ("abs.s32 %r0, %r1;", "%r0", [M1, 0, 0], 1),
        ("abs.s64 %d0, %d1;", "%d0", [-9i64 as u64, 0, 0], 9),
    ]);
}

#[test]
fn bits() {
    check(&[
        ("and.b32 %r0, %r1, %r2;", "%r0", [0b1100, 0b1010, 0], 0b1000),
        ("or.b64 %d0, %d1, %d2;", "%d0", [0b1100, 0b1010, 0], 0b1110),
        ("xor.b16 %h0, %h1, %h2;", "%h0", [0b1100, 0b1010, 0], 0b0110),
        ("not.b32 %r0, %r1;", "%r0", [0, 0, 0], M1),
        ("cnot.b32 %r0, %r1;", "%r0", [0, 0, 0], 1),
        ("shl.b32 %r0, %r1, %r2;", "%r0", [3, 31, 0], 0x8000_0000),
        ("shl.b32 %r0, %r1, %r2;", "%r0", [3, 32, 0], 0),
        ("shl.b64 %d0, %d1, %r2;", "%d0", [3, 64, 0], 0),
        ("shl.b64 %d0, %d1, 4;", "%d0", [3, 0, 0], 48),
        ("shr.u32 %r0, %r1, %r2;", "%r0", [0x8000_0000, 31, 0], 1),
        ("shr.u32 %r0, %r1, %r2;", "%r0", [0x8000_0000, 32, 0], 0),
        ("shr.s32 %r0, %r1, %r2;", "%r0", [0x8000_0000, 40, 0], M1),
        ("shr.s64 %d0, %d1, %r2;", "%d0", [1 << 63, 99, 0], u64::MAX),
        ("shr.u64 %d0, %d1, %r2;", "%d0", [1 << 63, 64, 0], 0),
        ("shr.s16 %h0, %h1, %r2;", "%h0", [0x8000, 4, 0], 0xf800),
        ("popc.b32 %r0, %r1;", "%r0", [0xf0f0, 0, 0], 8),
        ("popc.b64 %r0, %d1;", "%r0", [u64::MAX, 0, 0], 64),
        ("clz.b32 %r0, %r1;", "%r0", [1, 0, 0], 31),
        ("clz.b32 %r0, %r1;", "%r0", [0, 0, 0], 32),
        ("clz.b64 %r0, %d1;", "%r0", [1, 0, 0], 63),
        ("brev.b32 %r0, %r1;", "%r0", [1, 0, 0], 0x8000_0000),
        ("bfind.u32 %r0, %r1;", "%r0", [0x10, 0, 0], 4),
        ("bfind.u32 %r0, %r1;", "%r0", [0, 0, 0], M1),
        ("bfind.s32 %r0, %r1;", "%r0", [0xffff_fffe, 0, 0], 0),
        ("bfe.u32 %r0, %r1, %r2, %r3;", "%r0", [0xabcd, 4, 8], 0xbc),
        (
            "bfe.s32 %r0, %r1, %r2, %r3;",
            "%r0",
            [0xabcd, 4, 8],
            0xffff_ffbc,
        ),
        ("bfe.u64 %d0, %d1, %r2, %r3;", "%d0", [u64::MAX, 60, 8], 0xf),
        (
            "bfi.b32 %r0, %r1, %r2, 8, 8;",
            "%r0",
            [0xff, 0x1234_5678, 0],
            0x1234_ff78,
        ),
        (
            "bfi.b32 %r0, %r1, %r2, 40, 8;",
            "%r0",
            [0xff, 0x1234_5678, 0],
            0x1234_5678,
        ),
        (
            "prmt.b32 %r0, %r1, %r2, %r3;",
            "%r0",
            [0x0302_0100, 0x0706_0504, 0x7531],
            0x0705_0301,
        ),
        ("prmt.b32 %r0, %r1, %r2, 0x9999;", "%r0", [0x8000, 0, 0], M1),
        (
            "lop3.b32 %r0, %r1, %r2, %r3, 0x96;",
            "%r0",
            [0b1111, 0b0110, 0b0011],
            0b1010,
        ),
        (
            "lop3.b32 %r0, %r1, %r2, %r3, 0xE8;",
            "%r0",
            [0b1100, 0b1010, 0b0110],
            0b1110,
        ),
        (
            "shf.l.wrap.b32 %r0, %r1, %r2, %r3;",
            "%r0",
            [0x8000_0000, 1, 33],
            3,
        ),
        (
            "shf.r.wrap.b32 %r0, %r1, %r2, 4;",
            "%r0",
            [0x10, 0xf, 0],
            0xf000_0001,
        ),
        ("shf.r.clamp.b32 %r0, %r1, %r2, 40;", "%r0", [5, 9, 0], 9),
    ]);
}

#[test]
fn floats() {
    let tiny = f32::MIN_POSITIVE / 4.0;
    check(&[
        (
            "add.f32 %r0, %r1, %r2;",
            "%r0",
            [f(1.5), f(2.25), 0],
            f(3.75),
        ),
        (
            "add.rn.f64 %d0, %d1, %d2;",
            "%d0",
            [d(0.1), d(0.2), 0],
            d(0.1 + 0.2),
        ),
        (
            "add.ftz.f32 %r0, %r1, %r2;",
            "%r0",
            [f(tiny), f(tiny), 0],
            f(0.0),
        ),
        (
            "add.sat.f32 %r0, %r1, %r2;",
            "%r0",
            [f(1.5), f(2.0), 0],
            f(1.0),
        ),
        (
            "sub.f32 %r0, %r1, 0f3F800000;",
            "%r0",
            [f(1.5), 0, 0],
            f(0.5),
        ),
        (
            "mul.f32 %r0, %r1, %r2;",
            "%r0",
            [f(0.1), f(3.0), 0],
            f(0.1f32 * 3.0),
        ),
        (
            "mul.f64 %d0, %d1, 0d4008000000000000;",
            "%d0",
            [d(0.5), 0, 0],
            d(1.5),
        ),
        (
            "fma.rn.f32 %r0, %r1, %r2, %r3;",
            "%r0",
            [f(0.1), f(10.0), f(-1.0)],
            f(0.1f32.mul_add(10.0, -1.0)),
        ),
        (
            "mad.rn.f64 %d0, %d1, %d2, %d3;",
            "%d0",
            [d(2.0), d(3.0), d(4.0)],
            d(10.0),
        ),
        (
            "div.rn.f32 %r0, %r1, %r2;",
            "%r0",
            [f(1.0), f(3.0), 0],
            f(1.0 / 3.0),
        ),
        (
            "div.approx.f32 %r0, %r1, %r2;",
            "%r0",
            [f(1.0), f(0.0), 0],
            f(f32::INFINITY),
        ),
        (
            "min.f32 %r0, %r1, %r2;",
            "%r0",
            [f(f32::NAN), f(2.0), 0],
            f(2.0),
        ),
        ("max.f64 %d0, %d1, %d2;", "%d0", [d(1.0), d(2.0), 0], d(2.0)),
        ("neg.f32 %r0, %r1;", "%r0", [f(1.0), 0, 0], f(-1.0)),
        ("abs.f64 %d0, %d1;", "%d0", [d(-1.0), 0, 0], d(1.0)),
        (
            "sqrt.rn.f32 %r0, %r1;",
            "%r0",
            [f(2.0), 0, 0],
            f(2f32.sqrt()),
        ),
        ("rsqrt.approx.f32 %r0, %r1;", "%r0", [f(4.0), 0, 0], f(0.5)),
        ("rcp.rn.f64 %d0, %d1;", "%d0", [d(4.0), 0, 0], d(0.25)),
        ("ex2.approx.f32 %r0, %r1;", "%r0", [f(3.0), 0, 0], f(8.0)),
        ("lg2.approx.f32 %r0, %r1;", "%r0", [f(8.0), 0, 0], f(3.0)),
        ("sin.approx.f32 %r0, %r1;", "%r0", [f(0.0), 0, 0], f(0.0)),
        ("cos.approx.f32 %r0, %r1;", "%r0", [f(0.0), 0, 0], f(1.0)),
        ("tanh.approx.f32 %r0, %r1;", "%r0", [f(0.0), 0, 0], f(0.0)),
        (
            "copysign.f32 %r0, %r1, %r2;",
            "%r0",
            [f(-1.0), f(2.0), 0],
            f(-2.0),
        ),
    ]);
}

#[test]
fn comparisons_and_choices() {
    let nan = f(f32::NAN);
    check(&[
        ("setp.lt.s32 %p0, %r1, %r2;", "%p0", [M1, 1, 0], 1),
        ("setp.lt.u32 %p0, %r1, %r2;", "%p0", [M1, 1, 0], 0),
        ("setp.hi.u32 %p0, %r1, %r2;", "%p0", [M1, 1, 0], 1),
        ("setp.eq.b64 %p0, %d1, %d2;", "%p0", [7, 7, 0], 1),
        ("setp.ne.s16 %p0, %h1, %h2;", "%p0", [7, 7, 0], 0),
        ("setp.le.f32 %p0, %r1, %r2;", "%p0", [nan, nan, 0], 0),
        ("setp.leu.f32 %p0, %r1, %r2;", "%p0", [nan, nan, 0], 1),
        ("setp.neu.f32 %p0, %r1, %r2;", "%p0", [nan, nan, 0], 1),
        ("setp.nan.f32 %p0, %r1, %r2;", "%p0", [nan, 0, 0], 1),
        ("setp.num.f64 %p0, %d1, %d2;", "%p0", [d(1.0), d(2.0), 0], 1),
        ("setp.gt.and.s32 %p0, %r1, %r2, %p3;", "%p0", [2, 1, 1], 1),
        ("setp.gt.and.s32 %p0, %r1, %r2, !%p3;", "%p0", [2, 1, 1], 0),
        ("setp.gt.xor.s32 %p0, %r1, %r2, %p3;", "%p0", [2, 1, 1], 0),
        ("setp.eq.or.s32 %p0, %r1, %r2, %p3;", "%p0", [2, 1, 1], 1),
        ("setp.eq.s32 %p0|%p2, %r1, %r2;", "%p2", [2, 1, 1], 1),
        ("and.pred %p0, %p1, %p2;", "%p0", [1, 1, 0], 1),
        ("xor.pred %p0, %p1, %p2;", "%p0", [1, 1, 0], 0),
        ("not.pred %p0, %p1;", "%p0", [1, 0, 0], 0),
        ("mov.pred %p0, %p1;", "%p0", [1, 0, 0], 1),
        ("set.gt.u32.s32 %r0, %r1, %r2;", "%r0", [2, 1, 0], M1),
        ("set.gt.f32.s32 %r0, %r1, %r2;", "%r0", [2, 1, 0], f(1.0)),
        ("set.lt.u32.u32 %r0, %r1, %r2;", "%r0", [2, 1, 0], 0),
        ("selp.b32 %r0, %r1, %r2, %p3;", "%r0", [5, 6, 1], 5),
        ("selp.b64 %d0, %d1, %d2, %p3;", "%d0", [5, 6, 0], 6),
        ("mov.u32 %r0, 1; @%p1 mov.u32 %r0, 2;", "%r0", [0, 0, 0], 1),
        ("mov.u32 %r0, 1; @!%p1 mov.u32 %r0, 2;", "%r0", [0, 0, 0], 2),
        (
            "mov.u32 %r0, 1; @%p1 bra END; mov.u32 %r0, 2; END:",
            "%r0",
            [1, 0, 0],
            1,
        ),
    ]);
}

#[test]
fn conversions() {
    check(&[
        ("cvt.s64.s32 %d0, %r1;", "%d0", [M1, 0, 0], u64::MAX),
        ("cvt.u64.u32 %d0, %r1;", "%d0", [M1, 0, 0], M1),
        ("cvt.s32.s8 %r0, %r1;", "%r0", [0x80, 0, 0], 0xffff_ff80),
        ("cvt.u32.u8 %r0, %r1;", "%r0", [0x1ff, 0, 0], 0xff),
        ("cvt.sat.u8.s32 %r0, %r1;", "%r0", [300, 0, 0], 255),
        (
            "cvt.sat.s8.s32 %r0, %r1;",
            "%r0",
            [M1 - 1000, 0, 0],
            0xffff_ff80,
        ),
        ("cvt.rn.f32.s32 %r0, %r1;", "%r0", [M1, 0, 0], f(-1.0)),
        (
            "cvt.rn.f32.u32 %r0, %r1;",
            "%r0",
            [M1, 0, 0],
            f(u32::MAX as f32),
        ),
        (
            "cvt.rn.f64.u64 %d0, %d1;",
            "%d0",
            [u64::MAX, 0, 0],
            d(u64::MAX as f64),
        ),
        ("cvt.rn.f64.s16 %d0, %h1;", "%d0", [0xffff, 0, 0], d(-1.0)),
        ("cvt.rn.f32.f64 %r0, %d1;", "%r0", [d(0.1), 0, 0], f(0.1)),
        ("cvt.f64.f32 %d0, %r1;", "%d0", [f(0.5), 0, 0], d(0.5)),
        ("cvt.rzi.s32.f32 %r0, %r1;", "%r0", [f(-1.9), 0, 0], M1),
        ("cvt.rni.s32.f32 %r0, %r1;", "%r0", [f(2.5), 0, 0], 2),
        (
            "cvt.rmi.s32.f64 %r0, %d1;",
            "%r0",
            [d(-1.1), 0, 0],
            0xffff_fffe,
        ),
        ("cvt.rpi.u32.f64 %r0, %d1;", "%r0", [d(1.1), 0, 0], 2),
        ("cvt.rzi.u32.f32 %r0, %r1;", "%r0", [f(-5.0), 0, 0], 0),
        (
            "cvt.rzi.s32.f32 %r0, %r1;",
            "%r0",
            [f(1e20), 0, 0],
            0x7fff_ffff,
        ),
        (
            "cvt.rzi.u64.f32 %d0, %r1;",
            "%d0",
            [f(1e30), 0, 0],
            u64::MAX,
        ),
        ("cvt.rzi.s32.f32 %r0, %r1;", "%r0", [f(f32::NAN), 0, 0], 0),
        ("cvt.rmi.f32.f32 %r0, %r1;", "%r0", [f(1.9), 0, 0], f(1.0)),
        ("cvt.sat.f32.f32 %r0, %r1;", "%r0", [f(1.9), 0, 0], f(1.0)),
    ]);
}

#[test]
fn moves_and_memory() {
    check(&[
        ("mov.b64 %d0, {%r1, %r2};", "%d0", [1, 2, 0], 0x2_0000_0001),
        ("mov.b32 %r0, {%h1, %h2};", "%r0", [1, 2, 0], 0x2_0001),
        ("mov.b64 {%r0, %r4}, %d1;", "%r4", [0x2_0000_0001, 0, 0], 2),
        ("mov.b64 {_, %r4}, %d1;", "%r4", [0x2_0000_0001, 0, 0], 2),
        ("mov.u32 %r0, -3;", "%r0", [0, 0, 0], 0xffff_fffd),
        (
            "mov.f32 %r0, 0f40490FDB;",
            "%r0",
            [0, 0, 0],
            f(std::f32::consts::PI),
        ),
        (
            ".local .align 8 .b8 place[16]; mov.u64 %d4, place; st.local.u32 [%d4+4], %r1; ld.local.u32 %r0, [place+4];",
            "%r0",
            [9, 0, 0],
            9,
        ),
        (
            ".local .align 8 .b8 place[16]; mov.u64 %d4, place; cvta.local.u64 %d5, %d4; st.u32 [%d5], %r1; ld.local.u32 %r0, [place];",
            "%r0",
            [9, 0, 0],
            9,
        ),
        (
            ".shared .align 8 .b8 place[16]; st.shared.v2.u32 [place+8], {%r1, %r2}; ld.shared.u64 %d0, [place+8];",
            "%d0",
            [1, 2, 0],
            0x2_0000_0001,
        ),
        (
            ".shared .align 8 .b8 place[16]; mov.u64 %d4, place+4; cvta.shared.u64 %d5, %d4; st.b32 [%d5], %r1; cvta.to.shared.u64 %d6, %d5; ld.shared.u32 %r0, [%d6];",
            "%r0",
            [9, 0, 0],
            9,
        ),
        (
            ".shared .align 8 .b8 place[16]; mov.u64 %d4, place; cvta.shared.u64 %d5, %d4; isspacep.shared %p0, %d5;",
            "%p0",
            [0, 0, 0],
            1,
        ),
        ("isspacep.global %p0, %d8;", "%p0", [0, 0, 0], 1),
        (
            "st.global.u8 [%d8], %r1; ld.global.s8 %r0, [%d8];",
            "%r0",
            [0xff, 0, 0],
            M1,
        ),
        (
            "st.global.v2.b32 [%d8], {%r1, %r2}; ld.volatile.global.v2.b32 {%r4, %r0}, [%d8];",
            "%r0",
            [1, 2, 0],
            2,
        ),
        ("ld.param.u32 %r0, [in2+4];", "%r0", [0, 5 << 32, 0], 5),
        (
            "membar.gl; fence.acq_rel.gpu; mov.u32 %r0, WARP_SZ;",
            "%r0",
            [0, 0, 0],
            32,
        ),
        ("mov.u32 %r0, %ntid.x;", "%r0", [0, 0, 0], 1),
        ("activemask.b32 %r0;", "%r0", [0, 0, 0], 1),
        ("mov.u32 %r0, %dynamic_smem_size;", "%r0", [0, 0, 0], 64),
    ]);
}

#[test]
fn atomics() {
    let atom = |op: &str| format!("st.global.b64 [%d8], %d1; {op}; ld.global.b32 %r0, [%d8];");
    let mut bench = Bench::new();
    let cases = [
        ("atom.global.add.u32 %r4, [%d8], %r2", [5, 6, 0], 11),
        (
            "atom.global.add.f32 %r4, [%d8], %r2",
            [f(1.5), f(2.0), 0],
            f(3.5),
        ),
        ("red.global.add.s32 [%d8], %r2", [5, M1, 0], 4),
        ("atom.min.s32 %r4, [%d8], %r2", [5, M1, 0], M1),
        ("atom.max.u32 %r4, [%d8], %r2", [5, M1, 0], M1),
        ("atom.and.b32 %r4, [%d8], %r2", [12, 10, 0], 8),
        ("atom.or.b32 %r4, [%d8], %r2", [12, 10, 0], 14),
        ("atom.xor.b32 %r4, [%d8], %r2", [12, 10, 0], 6),
        ("atom.exch.b32 %r4, [%d8], %r2", [12, 10, 0], 10),
        ("atom.cas.b32 %r4, [%d8], %r2, %r3", [12, 12, 7], 7),
        ("atom.cas.b32 %r4, [%d8], %r2, %r3", [12, 11, 7], 12),
        ("atom.inc.u32 %r4, [%d8], %r2", [12, 12, 0], 0),
        ("atom.dec.u32 %r4, [%d8], %r2", [0, 12, 0], 12),
        (
            "atom.relaxed.gpu.global.add.u32 _, [%d8], %r2",
            [5, 6, 0],
            11,
        ),
    ];
    for (op, inputs, expected) in cases {
        assert_eq!(bench.evaluate(&atom(op), "%r0", inputs), expected, "{op}");
        if op.contains("%r4") {
            assert_eq!(bench.evaluate(&atom(op), "%r4", inputs), inputs[0], "{op}");
        }
    }
}
