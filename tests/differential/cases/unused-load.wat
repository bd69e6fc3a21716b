;; A load must trap even if its value is unused.
(module
  (memory 1)
  (func (export "dropped") (drop (i32.load (i32.const 0x7fffffff))))
  (func (export "not chosen") (result i32)
    (select (i32.const 7) (i32.load offset=8 (i32.const 0x7ffffff0)) (i32.const 1)))
  (func (export "overwritten") (result i32) (local i32)
    (local.set 0 (i32.load8_u (i32.const 0x10000)))
    (local.set 0 (i32.const 3))
    (local.get 0)))
