// The kernels, compiled to PTX by clang without NVIDIA's SDK; the driver translates that for its GPU.

#define __global__ __attribute__((global))
#define KERNEL extern "C" __global__ void

// y = a x + y
KERNEL saxpy(int n, float a, const float *x, float *y) {
  int i = __nvvm_read_ptx_sreg_ctaid_x() * __nvvm_read_ptx_sreg_ntid_x() + __nvvm_read_ptx_sreg_tid_x();
  if (i < n)
    y[i] = a * x[i] + y[i];
}
