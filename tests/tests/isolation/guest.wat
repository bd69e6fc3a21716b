;; Checks that everything is as for the first request, and then leaves a pattern everywhere.
;;
;; Standard input says what to do: eight digits.
;;   0  1: grow both memories                     4  1: change files
;;   1  1: grow a table                           5  1: write the environment to standard output
;;   2  1: drop the element segment               6  1: leave the pattern in all of the memory,
;;   3  1: drop the data segment                        otherwise in one page of it
;;   7  how to end: 0 return, 1 exit 0, 2 exit 3, 3 unreachable, 4 a store beyond the memory's end,
;;      5 stack overflow, 6 spin, 7 call of an empty table entry, 8 a division by zero
;; If something is not as for the first request, the exit code says what: see the calls of $require.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file"
    (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory"
    (func $path_create_directory (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (type $number (func (result i32)))
  (memory $memory (export "memory") 5 64)
  (memory $second 1 8)
  ;; The first table can grow; compiled code accesses the second one in place.
  (table $grows 4 64 funcref)
  (table $fixed 4 4 funcref)
  (table $external 2 2 externref)
  (global $stack (mut i32) (i32.const 70000))
  (global $wide (mut i64) (i64.const -7))
  (global $float (mut f64) (f64.const 1.5))
  (global $function (mut funcref) (ref.func $one))
  (global $starts (mut i32) (i32.const 0))

  ;; The only words that are not zero.
  (data (memory $memory) (i32.const 0x20000) "\88\77\66\55\44\33\22\11")
  (data (memory $memory) (i32.const 0x4fff8) "\01\00\00\00\00\00\00\00")
  (data (memory $second) (i32.const 0x8000) "\02\00\00\00\00\00\00\00")
  (data $passive "passive")
  (elem (table $grows) (i32.const 0) func $one $two)
  (elem (table $fixed) (i32.const 0) func $two $one)
  (elem $later func $three $two)
  (elem declare func $one $three)

  ;; The paths, and the pattern that is written to files.
  (func $one (type $number) (i32.const 1))
  (func $two (type $number) (i32.const 2))
  (func $three (type $number) (i32.const 3))

  (func $require (param $code i32) (param $holds i32)
    (if (i32.eqz (local.get $holds))
      (then (call $proc_exit (i32.add (i32.const 100) (local.get $code))))))

  (func $begin (global.set $starts (i32.add (global.get $starts) (i32.const 1))))
  (start $begin)

  ;; Count and sum of the nonzero words of the first memory.
  (func $words (param $end i32) (result i64 i64)
    (local $at i32) (local $word i64) (local $count i64) (local $sum i64)
    (loop $next
      (local.set $word (i64.load (local.get $at)))
      (if (i64.ne (local.get $word) (i64.const 0))
        (then
          (local.set $count (i64.add (local.get $count) (i64.const 1)))
          (local.set $sum (i64.add (local.get $sum) (local.get $word)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $count) (local.get $sum))

  (func $words_of_second (param $end i32) (result i64 i64)
    (local $at i32) (local $word i64) (local $count i64) (local $sum i64)
    (loop $next
      (local.set $word (i64.load $second (local.get $at)))
      (if (i64.ne (local.get $word) (i64.const 0))
        (then
          (local.set $count (i64.add (local.get $count) (i64.const 1)))
          (local.set $sum (i64.add (local.get $sum) (local.get $word)))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $count) (local.get $sum))

  (func $search
    (local $count i64) (local $sum i64)
    (call $require (i32.const 1) (i32.eq (memory.size $memory) (i32.const 5)))
    (call $require (i32.const 2) (i32.eq (memory.size $second) (i32.const 1)))
    (call $words (i32.const 0x50000))
    (local.set $sum)
    (local.set $count)
    (call $require (i32.const 3) (i64.eq (local.get $count) (i64.const 2)))
    (call $require (i32.const 4) (i64.eq (local.get $sum) (i64.const 0x1122334455667789)))
    (call $words_of_second (i32.const 0x10000))
    (local.set $sum)
    (local.set $count)
    (call $require (i32.const 5) (i64.eq (local.get $count) (i64.const 1)))
    (call $require (i32.const 6) (i64.eq (local.get $sum) (i64.const 2)))
    (call $require (i32.const 7) (i32.eq (global.get $stack) (i32.const 70000)))
    (call $require (i32.const 8) (i64.eq (global.get $wide) (i64.const -7)))
    (call $require (i32.const 9) (f64.eq (global.get $float) (f64.const 1.5)))
    (call $require (i32.const 10) (i32.eq (global.get $starts) (i32.const 1)))
    ;; Tables, read as elements and through indirect calls.
    (call $require (i32.const 11) (i32.eq (table.size $grows) (i32.const 4)))
    (call $require (i32.const 12) (i32.eq (i32.const 1) (call_indirect $grows (type $number) (i32.const 0))))
    (call $require (i32.const 13) (i32.eq (i32.const 2) (call_indirect $grows (type $number) (i32.const 1))))
    (call $require (i32.const 14) (ref.is_null (table.get $grows (i32.const 2))))
    (call $require (i32.const 15) (ref.is_null (table.get $grows (i32.const 3))))
    (call $require (i32.const 16) (i32.eq (i32.const 2) (call_indirect $fixed (type $number) (i32.const 0))))
    (call $require (i32.const 17) (i32.eq (i32.const 1) (call_indirect $fixed (type $number) (i32.const 1))))
    (call $require (i32.const 18) (ref.is_null (table.get $fixed (i32.const 2))))
    (call $require (i32.const 19) (ref.is_null (table.get $fixed (i32.const 3))))
    (call $require (i32.const 20) (ref.is_null (table.get $external (i32.const 1))))
    ;; The global that holds a function.
    (table.set $grows (i32.const 3) (global.get $function))
    (call $require (i32.const 21) (i32.eq (i32.const 1) (call_indirect $grows (type $number) (i32.const 3))))
    ;; Passive segments must exist and not be dropped.
    (memory.init $memory $passive (i32.const 0) (i32.const 0) (i32.const 7))
    (call $require (i32.const 22) (i32.eq (i32.load8_u (i32.const 6)) (i32.const 101)))
    (table.init $grows $later (i32.const 2) (i32.const 0) (i32.const 2))
    (call $require (i32.const 23) (i32.eq (i32.const 3) (call_indirect $grows (type $number) (i32.const 2)))))

  ;; Builds a path of four letters at 0x300, which is unused.
  (func $open (param $name i32) (param $create i32) (result i32)
    (i32.store (i32.const 0x300) (local.get $name))
    (call $path_open (i32.const 3) (i32.const 0) (i32.const 0x300) (i32.const 4) (local.get $create)
      (i64.const 0x42) (i64.const 0x42) (i32.const 0) (i32.const 0x310)))

  ;; The host's files are `kept`, which has one line, and `gone`; requests create `made` and `dirs`.
  (func $files
    (call $require (i32.const 30) (i32.eq (i32.const 44) (call $open (i32.const 0x6564616d) (i32.const 0))))
    (call $require (i32.const 31) (i32.eqz (call $open (i32.const 0x656e6f67) (i32.const 0))))
    (call $require (i32.const 32) (i32.eqz (call $open (i32.const 0x7470656b) (i32.const 0))))
    ;; It contains only `first`.
    (i32.store (i32.const 0x320) (i32.const 0x340))
    (i32.store (i32.const 0x324) (i32.const 64))
    (call $require (i32.const 33)
      (i32.eqz (call $fd_read (i32.load (i32.const 0x310)) (i32.const 0x320) (i32.const 1) (i32.const 0x330))))
    (call $require (i32.const 34) (i32.eq (i32.load (i32.const 0x330)) (i32.const 5)))
    (call $require (i32.const 35) (i32.eq (i32.load (i32.const 0x340)) (i32.const 0x73726966)))
    ;; Change all of these files.
    (i64.store (i32.const 0x340) (i64.const 0xa5a5a5a5a5a5a5a5))
    (call $require (i32.const 36)
      (i32.eqz (call $fd_write (i32.load (i32.const 0x310)) (i32.const 0x320) (i32.const 1) (i32.const 0x330))))
    (call $require (i32.const 37) (i32.eqz (call $open (i32.const 0x6564616d) (i32.const 1))))
    (call $require (i32.const 38)
      (i32.eqz (call $fd_write (i32.load (i32.const 0x310)) (i32.const 0x320) (i32.const 1) (i32.const 0x330))))
    (i32.store (i32.const 0x300) (i32.const 0x656e6f67))
    (call $require (i32.const 39)
      (i32.eqz (call $path_unlink_file (i32.const 3) (i32.const 0x300) (i32.const 4))))
    (i32.store (i32.const 0x300) (i32.const 0x73726964))
    (call $require (i32.const 40)
      (i32.eqz (call $path_create_directory (i32.const 3) (i32.const 0x300) (i32.const 4)))))

  (func $environment
    (call $require (i32.const 50) (i32.eqz (call $environ_sizes_get (i32.const 0x400) (i32.const 0x404))))
    (call $require (i32.const 51) (i32.eqz (call $environ_get (i32.const 0x500) (i32.const 0x800))))
    (i32.store (i32.const 0x320) (i32.const 0x800))
    (i32.store (i32.const 0x324) (i32.load (i32.const 0x404)))
    (call $require (i32.const 52)
      (i32.eqz (call $fd_write (i32.const 1) (i32.const 0x320) (i32.const 1) (i32.const 0x330)))))

  (func $chosen (param $digit i32) (result i32)
    (i32.eq (i32.load8_u (i32.add (i32.const 0x100) (local.get $digit))) (i32.const 49)))

  (func $grow
    (local $count i64)
    (call $require (i32.const 60) (i32.eq (memory.grow $memory (i32.const 3)) (i32.const 5)))
    (call $require (i32.const 61) (i32.eq (memory.grow $second (i32.const 2)) (i32.const 1)))
    ;; The added pages must be zero: all nonzero words are before them.
    (call $require (i32.const 62) (i64.eqz (call $words_between (i32.const 0x50000) (i32.const 0x80000))))
    (call $words_of_second (i32.const 0x30000))
    (drop)
    (local.set $count)
    (call $require (i32.const 63) (i64.eq (local.get $count) (i64.const 1))))

  (func $words_between (param $at i32) (param $end i32) (result i64)
    (local $all i64)
    (loop $next
      (local.set $all (i64.or (local.get $all) (i64.load (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $all))

  (func $leave (param $all i32)
    (global.set $stack (i32.const 0xa5a5a5a5))
    (global.set $wide (i64.const 0xa5a5a5a5a5a5a5a5))
    (global.set $float (f64.const 42))
    (global.set $function (ref.func $three))
    (table.fill $fixed (i32.const 0) (ref.func $three) (i32.const 3))
    (table.copy $fixed $grows (i32.const 3) (i32.const 0) (i32.const 1))
    ;; Calls must reach the functions that copies and fills have stored.
    (call $require (i32.const 70) (i32.eq (i32.const 3) (call_indirect $fixed (type $number) (i32.const 2))))
    (call $require (i32.const 71) (i32.eq (i32.const 1) (call_indirect $fixed (type $number) (i32.const 3))))
    (table.fill $grows (i32.const 0) (ref.func $three) (table.size $grows))
    (if (local.get $all)
      (then
        (memory.fill $memory (i32.const 0) (i32.const 0xa5)
          (i32.mul (memory.size $memory) (i32.const 0x10000)))
        (memory.fill $second (i32.const 0) (i32.const 0xa5)
          (i32.mul (memory.size $second) (i32.const 0x10000))))
      (else (memory.fill $memory (i32.const 0x20000) (i32.const 0xa5) (i32.const 64)))))

  (func $overflow (param $depth i64) (result i64)
    (i64.add (call $overflow (i64.add (local.get $depth) (i64.const 1))) (local.get $depth)))

  (func (export "_start")
    (local $ending i32)
    (call $search)
    (i32.store (i32.const 0x110) (i32.const 0x100))
    (i32.store (i32.const 0x114) (i32.const 8))
    (call $require (i32.const 24)
      (i32.eqz (call $fd_read (i32.const 0) (i32.const 0x110) (i32.const 1) (i32.const 0x120))))
    (call $require (i32.const 25) (i32.eq (i32.load (i32.const 0x120)) (i32.const 8)))
    (local.set $ending (i32.sub (i32.load8_u (i32.const 0x107)) (i32.const 48)))
    (if (call $chosen (i32.const 0)) (then (call $grow)))
    (if (call $chosen (i32.const 1))
      (then (call $require (i32.const 26)
        (i32.eq (table.grow $grows (ref.func $two) (i32.const 3)) (i32.const 4)))))
    (if (call $chosen (i32.const 2)) (then (elem.drop $later)))
    (if (call $chosen (i32.const 3)) (then (data.drop $passive)))
    (if (call $chosen (i32.const 4)) (then (call $files)))
    (if (call $chosen (i32.const 5)) (then (call $environment)))
    (call $leave (call $chosen (i32.const 6)))
    (if (i32.eq (local.get $ending) (i32.const 1)) (then (call $proc_exit (i32.const 0))))
    (if (i32.eq (local.get $ending) (i32.const 2)) (then (call $proc_exit (i32.const 3))))
    (if (i32.eq (local.get $ending) (i32.const 3)) (then (unreachable)))
    (if (i32.eq (local.get $ending) (i32.const 4))
      (then (i32.store (i32.mul (memory.size $memory) (i32.const 0x10000)) (i32.const 1))))
    (if (i32.eq (local.get $ending) (i32.const 5)) (then (drop (call $overflow (i64.const 0)))))
    (if (i32.eq (local.get $ending) (i32.const 6)) (then (loop $spin (br $spin))))
    (if (i32.eq (local.get $ending) (i32.const 7))
      (then (table.set $grows (i32.const 1) (ref.null func))
        (drop (call_indirect $grows (type $number) (i32.const 1)))))
    (if (i32.eq (local.get $ending) (i32.const 8))
      (then (drop (i32.div_u (i32.const 1) (i32.sub (local.get $ending) (i32.const 8))))))))
