// POST two vectors of little-endian floats, x followed by y, to /?a=NUMBER. The response is a x + y,
// computed on the GPU.
#include "faas.h"
#include "faas_cuda.h"

#include <stdlib.h>
#include <string.h>

enum { LIMIT = 64 << 20, THREADS = 256 };

static const char kernels[] = {
#embed "kernels.ptx"
    , 0};

static int refuse(int status, const char *reason) {
  faas_status(status);
  faas_printf("%s\n", reason);
  return 0;
}

// The result of the call that failed.
static CUresult failure;

static int failed(CUresult result) {
  failure = result;
  return result != CUDA_SUCCESS;
}

static const char *name(CUresult result) {
  const char *name = NULL;
  return cuGetErrorName(result, &name) == CUDA_SUCCESS && name ? name : "an unknown error";
}

// Computes a x + y into y.
static int saxpy(int n, float a, const float *x, float *y) {
  size_t size = (size_t)n * sizeof(float);
  CUdevice device;
  CUcontext context;
  CUmodule module;
  CUfunction kernel;
  CUdeviceptr dx, dy;
  void *parameters[] = {&n, &a, &dx, &dy};
  // The host frees everything at the end of the request.
  return !failed(cuInit(0)) && !failed(cuDeviceGet(&device, 0)) && !failed(cuCtxCreate(&context, 0, device)) &&
         !failed(cuModuleLoadData(&module, kernels)) && !failed(cuModuleGetFunction(&kernel, module, "saxpy")) &&
         !failed(cuMemAlloc(&dx, size)) && !failed(cuMemAlloc(&dy, size)) &&
         !failed(cuMemcpyHtoD(dx, x, size)) && !failed(cuMemcpyHtoD(dy, y, size)) &&
         !failed(cuLaunchKernel(kernel, (unsigned)(n + THREADS - 1) / THREADS, 1, 1, THREADS, 1, 1, 0, NULL, parameters,
                                NULL)) &&
         !failed(cuMemcpyDtoH(y, dy, size));
}

int handle(void) {
  if (strcmp(faas_method(), "POST") != 0)
    return refuse(405, "send two vectors with POST");
  const char *text = faas_query_parameter("a");
  char *end = NULL;
  float a = text ? strtof(text, &end) : 1;
  if (text && (end == text || *end))
    return refuse(400, "a must be a number");
  size_t size;
  char *body = faas_read_all(LIMIT, &size);
  if (!body)
    return refuse(413, "at most 64 MiB, please");
  if (size == 0 || size % (2 * sizeof(float)) != 0)
    return refuse(400, "the body must be two vectors of the same length");

  int n = (int)(size / (2 * sizeof(float)));
  // The body's memory comes from malloc, which aligns it for any type.
  float *x = (float *)body, *y = x + n;
  if (!saxpy(n, a, x, y)) {
    faas_status(503);
    faas_printf("the GPU cannot be used: %s\n", name(failure));
    return 0;
  }
  faas_header("Content-Type", "application/octet-stream");
  faas_write(y, (size_t)n * sizeof(float));
  return 0;
}
