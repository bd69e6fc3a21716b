(module
  (import "env" "cuMemAlloc_v2" (func (param i32 i32) (result i32)))
  (import "env" "cuMemFree_v2" (func (param i64) (result i32)))
  (import "env" "cuUnknown" (func (param f32) (result i32)))
  (@custom "faas.cuda" "w32p64")
  (@custom "faas.cuda.params" "vecadd pppi\nnone\n")
  (memory 1)
  (func (export "_start")))
