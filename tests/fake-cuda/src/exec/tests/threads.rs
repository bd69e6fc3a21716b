//! Calls, variables, and interaction of a block's threads.

use super::*;

#[test]
fn calls_pass_and_return_values() {
    let text = "
        .func (.param .b32 back) square(.param .b32 value, .param .align 4 .b8 pair[8]) {
          .reg .b32 %r<4>;
          ld.param.b32 %r1, [value]; ld.param.b32 %r2, [pair+4];
          mad.lo.s32 %r3, %r1, %r1, %r2; st.param.b32 [back], %r3; ret; }
        .visible .entry k(.param .u64 out) {
          .reg .b32 %r<3>; .reg .b64 %d1; ld.param.u64 %d1, [out];
          { .param .b32 p0; .param .align 4 .b8 p1[8]; .param .b32 r0;
            st.param.b32 [p0], 7; st.param.b32 [p1+4], 3;
            call.uni (r0), square, (p0, p1); ld.param.b32 %r1, [r0]; }
          { .param .b32 p0; .param .align 4 .b8 p1[8]; .param .b32 r0;
            st.param.b32 [p0], %r1; st.param.b32 [p1+4], 1;
            call (r0), square, (p0, p1); ld.param.b32 %r2, [r0]; }
          st.global.u32 [%d1], %r2; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(4);
    bench.run(text, (1, 1), &[out]).unwrap();
    assert_eq!(bench.words(out, 1), [52 * 52 + 1]);
}

#[test]
fn variables_have_addresses_and_initial_values() {
    let text = "
        .global .align 4 .u32 first = 5;
        .const .align 4 .b8 bytes[8] = {1, 0, 0, 0, 2, 0, 0, 0};
        .global .align 8 .u64 pointer = first;
        .global .align 8 .u64 further = generic(bytes)+4;
        .visible .entry k(.param .u64 out) {
          .reg .b32 %r<5>; .reg .b64 %d<5>; ld.param.u64 %d0, [out];
          ld.global.u64 %d1, [pointer]; ld.global.u32 %r1, [%d1];
          ld.global.u64 %d2, [further]; ld.u32 %r2, [%d2]; ld.const.u32 %r3, [bytes];
          st.global.v2.u32 [%d0], {%r1, %r2}; st.global.u32 [%d0+8], %r3; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(12);
    bench.run(text, (1, 1), &[out]).unwrap();
    assert_eq!(bench.words(out, 3), [5, 2, 1]);
}

#[test]
fn barriers_wait_for_all_threads() {
    // 100 times, each thread writes its number and reads that of the opposite thread.
    let text = "
        .shared .align 4 .b8 place[512];
        .visible .entry k(.param .u64 out) {
          .reg .pred %p1; .reg .b32 %r<9>; .reg .b64 %d<4>;
          ld.param.u64 %d0, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, place; shl.b32 %r3, %r1, 2;
          add.u32 %r4, %r2, %r3; xor.b32 %r5, %r3, 508; add.u32 %r5, %r2, %r5; mov.u32 %r6, 0;
          mov.u32 %r7, %r1;
        L: st.shared.u32 [%r4], %r7; bar.sync 0; ld.shared.u32 %r7, [%r5]; barrier.sync 1;
          add.u32 %r6, %r6, 1; setp.lt.u32 %p1, %r6, 101; @%p1 bra L;
          cvt.u64.u32 %d1, %r3; add.u64 %d2, %d0, %d1; st.global.u32 [%d2], %r7; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(512);
    bench.run(text, (1, 128), &[out]).unwrap();
    let expected: Vec<_> = (0..128).rev().collect();
    assert_eq!(bench.words(out, 128), expected);
}

#[test]
fn ended_threads_do_not_block_a_barrier() {
    let text = ".visible .entry k(.param .u64 out) {
        .reg .pred %p1; .reg .b32 %r1; .reg .b64 %d0; ld.param.u64 %d0, [out];
        mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 3; @%p1 exit;
        bar.sync 0; red.global.add.u32 [%d0], 1; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(4);
    bench.run(text, (2, 40), &[out]).unwrap();
    assert_eq!(bench.words(out, 1), [8]);
}

#[test]
fn producers_arrive_and_consumers_wait() {
    let text = ".shared .align 4 .b8 place[4];
        .visible .entry k(.param .u64 out) {
        .reg .pred %p1; .reg .b32 %r<3>; .reg .b64 %d0; ld.param.u64 %d0, [out];
        mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32; @%p1 bra LATE;
        bar.sync 3, 64; ld.shared.u32 %r2, [place]; red.global.add.u32 [%d0], %r2; ret;
        LATE: st.shared.u32 [place], 2; bar.arrive 3, 64; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(4);
    bench.run(text, (1, 64), &[out]).unwrap();
    assert_eq!(bench.words(out, 1), [64]);
}

#[test]
fn threads_may_wait_for_each_other_in_loops() {
    let text = ".visible .entry k(.param .u64 out) {
        .reg .pred %p<3>; .reg .b32 %r<3>; .reg .b64 %d0; ld.param.u64 %d0, [out];
        mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 1; @%p1 bra SET;
        WAIT: ld.volatile.global.u32 %r2, [%d0]; setp.eq.u32 %p2, %r2, 0; @%p2 bra WAIT;
        st.global.u32 [%d0+4], %r2; ret;
        SET: st.volatile.global.u32 [%d0], 9; ret; }";
    let mut bench = Bench::new();
    let out = bench.allocate(8);
    bench.run(text, (1, 2), &[out]).unwrap();
    assert_eq!(bench.words(out, 2), [9, 9]);
}

#[test]
fn warps_shuffle_and_vote() {
    let run = |instruction: &str| {
        let text = format!(
            ".visible .entry k(.param .u64 out) {{
             .reg .pred %p<3>; .reg .b32 %r<5>; .reg .b64 %d<4>; ld.param.u64 %d0, [out];
             mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 3; mul.wide.u32 %d1, %r1, 4;
             add.u64 %d2, %d0, %d1; {instruction} st.global.u32 [%d2], %r2; ret; }}"
        );
        let mut bench = Bench::new();
        let out = bench.allocate(128);
        bench.run(&text, (1, 32), &[out]).unwrap();
        bench.words(out, 32)
    };
    assert_eq!(
        run("shfl.sync.down.b32 %r2, %r1, 16, 31, -1;")[..17],
        (16..32).chain([16]).collect::<Vec<_>>()
    );
    assert_eq!(
        run("shfl.sync.up.b32 %r2, %r1, 1, 0, -1;")[..4],
        [0, 0, 1, 2]
    );
    assert_eq!(
        run("shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;")[..4],
        [1, 0, 3, 2]
    );
    assert_eq!(run("shfl.sync.idx.b32 %r2, %r1, 5, 31, -1;"), [5; 32]);
    // Segments of eight lanes.
    assert_eq!(
        run("shfl.sync.idx.b32 %r2, %r1, 1, 0x181f, -1;")[6..10],
        [1, 1, 9, 9]
    );
    let within = "shfl.sync.down.b32 %r3|%p2, %r1, 1, 31, -1; selp.u32 %r2, 1, 0, %p2;";
    assert_eq!(run(within)[30..], [1, 0]);
    assert_eq!(run("vote.sync.ballot.b32 %r2, %p1, -1;"), [7; 32]);
    assert_eq!(
        run("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r2, 1, 0, %p2;"),
        [1; 32]
    );
    assert_eq!(
        run("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r2, 1, 0, %p2;"),
        [0; 32]
    );
    assert_eq!(
        run("vote.sync.uni.pred %p2, !%p1, -1; selp.u32 %r2, 1, 0, %p2;"),
        [0; 32]
    );
    assert_eq!(
        run("bar.warp.sync -1; mov.u32 %r2, %lanemask_lt;")[..3],
        [0, 1, 3]
    );
}

#[test]
fn faults_say_where() {
    let mut bench = Bench::new();
    let out = bench.allocate(64);
    let mut fault = |body: &str| {
        let text = format!(
            ".extern .func __assertfail(.param .b64 a);
             .visible .entry k(.param .u64 out) {{ .reg .b32 %r<3>; .reg .b64 %d<4>;
             .shared .align 4 .b8 place[4]; ld.param.u64 %d0, [out]; {body} ret; }}"
        );
        bench.run(&text, (1, 2), &[out]).unwrap_err()
    };
    let cases = [
        ("st.global.u32 [%d0+64], 1;", Code::ILLEGAL_ADDRESS),
        ("ld.global.u32 %r1, [%d0+-4];", Code::ILLEGAL_ADDRESS),
        ("ld.global.u32 %r1, [0];", Code::ILLEGAL_ADDRESS),
        ("ld.global.u32 %r1, [%d0+2];", Code::MISALIGNED_ADDRESS),
        // Declared and dynamic shared memory; the next byte faults.
        ("st.shared.u32 [place+80], 1;", Code::ILLEGAL_ADDRESS),
        ("ld.local.u32 %r1, [1024];", Code::ILLEGAL_ADDRESS),
        ("trap;", Code::LAUNCH_FAILED),
        ("bar.sync 16;", Code::ILLEGAL_INSTRUCTION),
        ("vote.sync.ballot.b32 %r1, 1, 2;", Code::ILLEGAL_INSTRUCTION),
        (
            "{ .param .b64 p; st.param.b64 [p], 0; call __assertfail, (p); }",
            Code::ASSERT,
        ),
    ];
    for (body, code) in cases {
        let found = fault(body);
        assert_eq!(found.code, code, "{body}: {found}");
        assert!(
            found
                .to_string()
                .contains("block [0, 0, 0], thread [0, 0, 0]"),
            "{found}"
        );
    }
}

#[test]
fn recursion_depth_is_limited() {
    let text = ".func deep() { call deep; ret; }
        .visible .entry k() { call deep; ret; }";
    let fault = Bench::new().run(text, (1, 1), &[]).unwrap_err();
    assert_eq!(fault.code, Code::HARDWARE_STACK_ERROR);
}

#[test]
fn an_endless_wait_counts_as_running() {
    let text = ".visible .entry k() {
        .reg .pred %p1; .reg .b32 %r1; mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0;
        @%p1 bra ONE; bar.sync 1; ret; ONE: bar.sync 2; ret; }";
    let mut bench = Bench::new();
    let mut run = bench.launch(text, (1, 2), &[]);
    for _ in 0..10 {
        assert_eq!(
            run.advance(1000, &mut bench.memory).unwrap(),
            Progress::Running
        );
    }
}
