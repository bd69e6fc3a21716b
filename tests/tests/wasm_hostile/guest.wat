;; Performs one hostile action per request, after checking that everything is as for the first request.
;;
;; Standard input selects the action with two digits: see $act. 00 only checks. If something is not as for the first
;; request, the exit code is 100 or more.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))

  (type $number (func (result i32)))
  (type $taker (func (param i32)))
  (memory $memory (export "memory") 2 4096)
  (memory $second 1 64)
  (table $table 8 100 funcref)
  (table $still 4 4 funcref)
  (global $depth (mut i32) (i32.const 0))
  (global $sink (mut i64) (i64.const 0))
  (tag $error (param i32 i64))
  (elem (table $table) (i32.const 0) func $one)
  (elem (table $still) (i32.const 0) func $one $again)
  (elem $later func $one $again)
  (data $passive "passive")

  (func $one (type $number) (i32.const 1))

  (func $require (param $code i32) (param $holds i32)
    (if (i32.eqz (local.get $holds))
      (then (call $proc_exit (i32.add (i32.const 100) (local.get $code))))))

  (func $look
    (call $require (i32.const 1) (i32.eq (memory.size $memory) (i32.const 2)))
    (call $require (i32.const 2) (i32.eq (memory.size $second) (i32.const 1)))
    (call $require (i32.const 3) (i32.eq (table.size $table) (i32.const 8)))
    (call $require (i32.const 4) (i32.eq (i32.const 1) (call_indirect $table (type $number) (i32.const 0))))
    (call $require (i32.const 5) (i32.eq (i32.const 1) (call_indirect $still (type $number) (i32.const 0))))
    (call $require (i32.const 6) (ref.is_null (table.get $table (i32.const 5))))
    (call $require (i32.const 7) (i32.eqz (global.get $depth)))
    (call $require (i32.const 8) (i64.eqz (i64.load (i32.const 0x10000))))
    (call $require (i32.const 9) (i64.eqz (i64.load (i32.const 0x1fff8))))
    (call $require (i32.const 10) (i64.eqz (i64.load $second (i32.const 0xfff8))))
    (memory.init $memory $passive (i32.const 0) (i32.const 0) (i32.const 7))
    (call $require (i32.const 11) (i32.eq (i32.load8_u (i32.const 6)) (i32.const 101)))
    (table.init $table $later (i32.const 1) (i32.const 0) (i32.const 1))
    (call $require (i32.const 12) (i32.eq (i32.const 1) (call_indirect $table (type $number) (i32.const 1)))))

  ;; Leaves traces everywhere, so that the next request finds any that stay.
  (func $leave
    (global.set $depth (i32.const 7))
    (i64.store (i32.const 0x10000) (i64.const -1))
    (i64.store (i32.const 0x1fff8) (i64.const -1))
    (i64.store $second (i32.const 0xfff8) (i64.const -1))
    (table.set $table (i32.const 5) (ref.func $one))
    (drop (memory.grow $memory (i32.const 1)))
    (i64.store (i32.const 0x20000) (i64.const -1)))

  (func $descend (param $n i64) (result i64)
    (i64.add (call $descend (i64.add (local.get $n) (i64.const 1))) (local.get $n)))

  ;; Recursion through a table.
  (func $again (type $number)
    (i32.add (call_indirect $still (type $number) (i32.const 1)) (i32.const 1)))

  ;; Recursion that makes host calls and library calls on the way down.
  (func $calling (param $n i32) (result i32)
    (drop (call $random_get (i32.const 0x400) (i32.const 64)))
    (memory.fill (i32.const 0x800) (i32.const 1) (i32.const 64))
    (drop (call $yield))
    (i32.add (call $calling (i32.add (local.get $n) (i32.const 1))) (local.get $n)))

  ;; Throws and catches at every level.
  (func $throwing (param $n i32) (result i32)
    (drop (call $catching))
    (i32.add (call $throwing (i32.add (local.get $n) (i32.const 1))) (local.get $n)))

  (func $throw (throw $error (i32.const 41) (i64.const 1)))

  (func $catching (result i32)
    (local $value i64)
    (block $caught (result i32 i64)
      (try_table (catch $error $caught) (call $throw))
      (unreachable))
    (local.set $value)
    (i32.add (i32.wrap_i64 (local.get $value))))

  ;; A frame between a throw and its catch, which must be unwound.
  (func $deep (param $n i32)
    (if (i32.eqz (local.get $n)) (then (call $throw)))
    (call $deep (i32.sub (local.get $n) (i32.const 1)))
    (global.set $sink (i64.const 1)))

  (func $tail (param $n i32) (return_call $tail (i32.add (local.get $n) (i32.const 1))))
  (func $tail_indirect (type $number) (return_call_indirect $table (type $number) (i32.const 7)))
  (elem declare func $tail_indirect $nothing)
  (func $nothing (param i32))

  ;; Uses a loaded value, because the compiler may drop an unused load.
  (func $keep (param $value i32) (global.set $depth (local.get $value)))

  (func $vectors (result i32)
    (v128.store (i32.const 0x600) (i8x16.add (i8x16.splat (i32.const 3)) (v128.load (i32.const 0x700))))
    (i32x4.extract_lane 3 (i32x4.mul (v128.load (i32.const 0x600)) (i32x4.splat (i32.const 1)))))

  (func $act (param $what i32)
    (local $at i32)
    (block $none
    (block $b40 (block $b39 (block $b38 (block $b37 (block $b36 (block $b35 (block $b34 (block $b33
    (block $b32 (block $b31 (block $b30 (block $b29 (block $b28 (block $b27 (block $b26 (block $b25
    (block $b24 (block $b23 (block $b22 (block $b21 (block $b20 (block $b19 (block $b18 (block $b17
    (block $b16 (block $b15 (block $b14 (block $b13 (block $b12 (block $b11 (block $b10 (block $b9
    (block $b8 (block $b7 (block $b6 (block $b5 (block $b4 (block $b3 (block $b2 (block $b1 (block $b0
      (br_table $b0 $b1 $b2 $b3 $b4 $b5 $b6 $b7 $b8 $b9 $b10 $b11 $b12 $b13 $b14 $b15 $b16 $b17 $b18
        $b19 $b20 $b21 $b22 $b23 $b24 $b25 $b26 $b27 $b28 $b29 $b30 $b31 $b32 $b33 $b34 $b35 $b36
        $b37 $b38 $b39 $b40 $none (local.get $what)))
    ;; 0: nothing
    (br $none))
    ;; 1: unreachable
    (unreachable))
    ;; 2: beyond the memory's end
    (call $keep (i32.load (i32.const 0x30000))) (br $none))
    ;; 3: as far beyond as an instruction can reach
    (call $keep (i32.load8_u offset=0xffffffff (i32.const 0xffffffff))) (br $none))
    ;; 4: a vector that lies half beyond the end
    (v128.store offset=0xfffffff0 (i32.const 0xfffffff8) (v128.const i64x2 1 1)) (br $none))
    ;; 5 to 8: arithmetic
    (drop (i32.div_s (i32.const 1) (i32.sub (local.get $what) (i32.const 5)))) (br $none))
    (drop (i64.rem_u (i64.const 1) (i64.extend_i32_u (i32.sub (local.get $what) (i32.const 6))))) (br $none))
    (drop (i32.div_s (i32.const 0x80000000) (i32.sub (i32.const 6) (local.get $what)))) (br $none))
    (drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.convert_i32_s (i32.sub (local.get $what) (i32.const 8)))))) (br $none))
    ;; 9 to 12: indirect calls: of a null entry, of another type, beyond the end, of another type at $still
    (drop (call_indirect $table (type $number) (i32.const 6))) (br $none))
    (call_indirect $table (type $taker) (i32.const 1) (i32.const 0)) (br $none))
    (drop (call_indirect $table (type $number) (i32.const -1))) (br $none))
    (call_indirect $still (type $taker) (i32.const 1) (i32.const 0)) (br $none))
    ;; 13 to 18: tables
    (drop (ref.is_null (table.get $table (i32.const 8)))) (br $none))
    (table.set $table (i32.const -1) (ref.func $one)) (br $none))
    (table.fill $table (i32.const 5) (ref.func $one) (i32.const 4)) (br $none))
    (table.copy $still $table (i32.const 0) (i32.const 4) (i32.const 5)) (br $none))
    (table.init $table $later (i32.const 0) (i32.const 1) (i32.const 2)) (br $none))
    (elem.drop $later) (table.init $table $later (i32.const 0) (i32.const 0) (i32.const 1)) (br $none))
    ;; 19 to 23: bulk operations on memories
    (memory.fill (i32.const 0x2fff0) (i32.const 1) (i32.const 17)) (br $none))
    (memory.copy $memory $second (i32.const 0) (i32.const 0xffff) (i32.const 2)) (br $none))
    (memory.copy (i32.const -1) (i32.const 0) (i32.const -1)) (br $none))
    (memory.init $memory $passive (i32.const 0) (i32.const 4) (i32.const 4)) (br $none))
    (data.drop $passive) (memory.init $memory $passive (i32.const 0) (i32.const 0) (i32.const 1)) (br $none))
    ;; 24 to 27: until the stack overflows
    (drop (call $descend (i64.const 0))) (br $none))
    (drop (call $again)) (br $none))
    (drop (call $calling (i32.const 0))) (br $none))
    (drop (call $throwing (i32.const 0))) (br $none))
    ;; 28 to 31: exceptions: uncaught, a null reference thrown, caught, caught many frames away
    (call $throw) (br $none))
    (throw_ref (ref.null exn)))
    (call $require (i32.const 20) (i32.eq (i32.const 42) (call $catching))) (br $none))
    (block $caught (result i32 i64)
      (try_table (catch $error $caught) (call $deep (i32.const 1000)))
      (unreachable))
    (drop) (drop) (br $none))
    ;; 32 to 39: endless: tail calls, also through tables; growing memory by nothing; growing memory to its limit; tables;
    ;; exceptions; host calls; large operations
    (call $tail (i32.const 0)) (br $none))
    (table.set $table (i32.const 7) (ref.func $tail_indirect))
    (drop (call_indirect $table (type $number) (i32.const 7))) (br $none))
    (loop $forever (drop (memory.grow (i32.const 0))) (br $forever)))
    (loop $forever
      (drop (memory.grow (i32.const 1)))
      (i32.store8 (i32.sub (i32.mul (memory.size $memory) (i32.const 0x10000)) (i32.const 1)) (i32.const 1))
      (br $forever)))
    (loop $forever
      (drop (table.grow $table (ref.func $one) (i32.const 1)))
      (table.fill $table (i32.const 0) (ref.func $one) (table.size $table))
      (table.copy $still $table (i32.const 0) (i32.const 0) (i32.const 4))
      (br $forever)))
    (loop $forever (drop (call $catching)) (br $forever)))
    (loop $forever (drop (call $yield)) (br $forever)))
    (drop (memory.grow (i32.const 4000)))
    (loop $forever
      (drop (call $random_get (i32.const 0x10000) (i32.const 0xfa00000)))
      (br $forever)))
    ;; 40: vectors
    (call $require (i32.const 30) (i32.eq (call $vectors) (i32.const 0x03030303))))
    (nop))

  (func (export "_start")
    (call $look)
    (i32.store (i32.const 0x110) (i32.const 0x100))
    (i32.store (i32.const 0x114) (i32.const 2))
    (call $require (i32.const 40)
      (i32.eqz (call $fd_read (i32.const 0) (i32.const 0x110) (i32.const 1) (i32.const 0x120))))
    (call $require (i32.const 41) (i32.eq (i32.load (i32.const 0x120)) (i32.const 2)))
    (call $leave)
    (call $act
      (i32.add
        (i32.mul (i32.sub (i32.load8_u (i32.const 0x100)) (i32.const 48)) (i32.const 10))
        (i32.sub (i32.load8_u (i32.const 0x101)) (i32.const 48))))
    ;; Records that the action has returned.
    (i32.store (i32.const 0x100) (i32.const 0x0a6b6f))
    (i32.store (i32.const 0x114) (i32.const 3))
    (drop (call $fd_write (i32.const 1) (i32.const 0x110) (i32.const 1) (i32.const 0x120)))))
