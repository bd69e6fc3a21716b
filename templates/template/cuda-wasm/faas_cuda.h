// The CUDA driver API for WebAssembly guests of faas-wasm: the functions that a program imports from
// module "env".
//
// Written from the public documentation of the API. It declares what our guests use and does not
// replace cuda.h, which programs can use as well. Names, values, and layouts are those of the driver.
// The same source compiles natively against libcuda.
//
// Device pointers. By default CUdeviceptr has the size of a pointer: 4 bytes on wasm32, as with
// cuda.h. Such a pointer is an address in a device address space of the instance, which has at most
// 4 GiB. The host translates it in arguments of calls and in kernel parameters. It cannot translate
// pointers inside structures that are passed by value, or in device memory.
// If FAAS_CUDA_DEVPTR64 is defined before this file is included, CUdeviceptr has 8 bytes and is the
// address on the device: programs can store pointers anywhere and use all device memory. Prefer it
// for new programs. All parts of a program must use the same setting.
#ifndef FAAS_CUDA_H
#define FAAS_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __wasm__
#define FAAS_CUDA_API(name) \
  __attribute__((import_module("env"), import_name(#name))) CUresult name
#else
#define FAAS_CUDA_API(name) CUresult name
#endif

typedef int CUresult;
typedef int CUdevice;
#ifdef FAAS_CUDA_DEVPTR64
typedef unsigned long long CUdeviceptr;
#else
typedef uintptr_t CUdeviceptr;
#endif
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUlib_st *CUlibrary;
typedef struct CUkern_st *CUkernel;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUmemPool_st *CUmemoryPool;
typedef struct { char bytes[16]; } CUuuid;

enum {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_INVALID_IMAGE = 200,
  CUDA_ERROR_INVALID_CONTEXT = 201,
  CUDA_ERROR_INVALID_PTX = 218,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ERROR_FILE_NOT_FOUND = 301,
  CUDA_ERROR_INVALID_HANDLE = 400,
  CUDA_ERROR_NOT_FOUND = 500,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_ILLEGAL_ADDRESS = 700,
  CUDA_ERROR_LAUNCH_TIMEOUT = 702,
  CUDA_ERROR_LAUNCH_FAILED = 719,
  CUDA_ERROR_NOT_SUPPORTED = 801,
  CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
};

enum {
  CU_CTX_SCHED_AUTO = 0,
  CU_STREAM_DEFAULT = 0,
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_DEFAULT = 0,
  CU_EVENT_DISABLE_TIMING = 2,
  CU_MEMORYTYPE_HOST = 1,
  CU_MEMORYTYPE_DEVICE = 2,
  CU_STREAM_CAPTURE_MODE_GLOBAL = 0,
  CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1,
  CU_STREAM_CAPTURE_MODE_RELAXED = 2,
  CU_STREAM_CAPTURE_STATUS_NONE = 0,
  CU_STREAM_CAPTURE_STATUS_ACTIVE = 1,
  CU_LIMIT_STACK_SIZE = 0,
  CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
  CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 1,
  CU_DEVICE_ATTRIBUTE_WARP_SIZE = 10,
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
};

// The special streams: the legacy and the per-thread default stream.
#define CU_STREAM_LEGACY ((CUstream)1)
#define CU_STREAM_PER_THREAD ((CUstream)2)

// Terminator and keys of the list `extra` of a launch.
#define CU_LAUNCH_PARAM_END ((void *)0)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void *)1)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((void *)2)

typedef struct CUDA_MEMCPY2D_st {
  size_t srcXInBytes, srcY;
  unsigned int srcMemoryType;
  const void *srcHost;
  CUdeviceptr srcDevice;
  void *srcArray;
  size_t srcPitch;
  size_t dstXInBytes, dstY;
  unsigned int dstMemoryType;
  void *dstHost;
  CUdeviceptr dstDevice;
  void *dstArray;
  size_t dstPitch;
  size_t WidthInBytes, Height;
} CUDA_MEMCPY2D;

typedef struct CUDA_MEMCPY3D_st {
  size_t srcXInBytes, srcY, srcZ, srcLOD;
  unsigned int srcMemoryType;
  const void *srcHost;
  CUdeviceptr srcDevice;
  void *srcArray;
  void *reserved0;
  size_t srcPitch, srcHeight;
  size_t dstXInBytes, dstY, dstZ, dstLOD;
  unsigned int dstMemoryType;
  void *dstHost;
  CUdeviceptr dstDevice;
  void *dstArray;
  void *reserved1;
  size_t dstPitch, dstHeight;
  size_t WidthInBytes, Height, Depth;
} CUDA_MEMCPY3D;

typedef struct CUDA_KERNEL_NODE_PARAMS_st {
  CUfunction func;
  unsigned int gridDimX, gridDimY, gridDimZ;
  unsigned int blockDimX, blockDimY, blockDimZ;
  unsigned int sharedMemBytes;
  void **kernelParams;
  void **extra;
  CUkernel kern;
  CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS;

typedef struct CUDA_MEMSET_NODE_PARAMS_st {
  CUdeviceptr dst;
  size_t pitch;
  unsigned int value;
  unsigned int elementSize;
  size_t width, height;
} CUDA_MEMSET_NODE_PARAMS;

typedef struct CUlaunchAttribute_st {
  unsigned int id;
  char pad[4];
  union {
    char pad[64];
    int cooperative;
    int priority;
  } value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig_st {
  unsigned int gridDimX, gridDimY, gridDimZ;
  unsigned int blockDimX, blockDimY, blockDimZ;
  unsigned int sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute *attrs;
  unsigned int numAttrs;
} CUlaunchConfig;

typedef struct CUmemPoolProps_st {
  unsigned int allocType;    // 1: pinned to its location
  unsigned int handleTypes;  // 0: not shared
  struct { unsigned int type; int id; } location;  // type 1: a device
  void *win32SecurityAttributes;
  size_t maxSize;
  unsigned short usage;
  unsigned char reserved[54];
} CUmemPoolProps;

// The driver and its devices.
FAAS_CUDA_API(cuInit)(unsigned int flags);
FAAS_CUDA_API(cuDriverGetVersion)(int *version);
FAAS_CUDA_API(cuGetErrorName)(CUresult error, const char **name);
FAAS_CUDA_API(cuGetErrorString)(CUresult error, const char **text);
FAAS_CUDA_API(cuDeviceGetCount)(int *count);
FAAS_CUDA_API(cuDeviceGet)(CUdevice *device, int ordinal);
FAAS_CUDA_API(cuDeviceGetName)(char *name, int length, CUdevice device);
FAAS_CUDA_API(cuDeviceGetAttribute)(int *value, int attribute, CUdevice device);
FAAS_CUDA_API(cuDeviceTotalMem_v2)(size_t *bytes, CUdevice device);
FAAS_CUDA_API(cuDeviceGetUuid_v2)(CUuuid *uuid, CUdevice device);
FAAS_CUDA_API(cuDeviceGetDefaultMemPool)(CUmemoryPool *pool, CUdevice device);

// Contexts.
FAAS_CUDA_API(cuCtxCreate_v2)(CUcontext *context, unsigned int flags, CUdevice device);
FAAS_CUDA_API(cuCtxDestroy_v2)(CUcontext context);
FAAS_CUDA_API(cuCtxSetCurrent)(CUcontext context);
FAAS_CUDA_API(cuCtxGetCurrent)(CUcontext *context);
FAAS_CUDA_API(cuCtxPushCurrent_v2)(CUcontext context);
FAAS_CUDA_API(cuCtxPopCurrent_v2)(CUcontext *context);
FAAS_CUDA_API(cuCtxGetDevice)(CUdevice *device);
FAAS_CUDA_API(cuCtxGetLimit)(size_t *value, int limit);
FAAS_CUDA_API(cuCtxSetLimit)(int limit, size_t value);
FAAS_CUDA_API(cuCtxGetStreamPriorityRange)(int *least, int *greatest);
FAAS_CUDA_API(cuCtxSynchronize)(void);
FAAS_CUDA_API(cuDevicePrimaryCtxRetain)(CUcontext *context, CUdevice device);
FAAS_CUDA_API(cuDevicePrimaryCtxRelease_v2)(CUdevice device);
FAAS_CUDA_API(cuDevicePrimaryCtxGetState)(CUdevice device, unsigned int *flags, int *active);

// Memory.
FAAS_CUDA_API(cuMemGetInfo_v2)(size_t *free, size_t *total);
FAAS_CUDA_API(cuMemAlloc_v2)(CUdeviceptr *pointer, size_t bytes);
FAAS_CUDA_API(cuMemAllocPitch_v2)(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned int element);
FAAS_CUDA_API(cuMemFree_v2)(CUdeviceptr pointer);
FAAS_CUDA_API(cuMemGetAddressRange_v2)(CUdeviceptr *base, size_t *size, CUdeviceptr pointer);
FAAS_CUDA_API(cuPointerGetAttribute)(void *data, int attribute, CUdeviceptr pointer);
FAAS_CUDA_API(cuMemAllocAsync)(CUdeviceptr *pointer, size_t bytes, CUstream stream);
FAAS_CUDA_API(cuMemFreeAsync)(CUdeviceptr pointer, CUstream stream);
FAAS_CUDA_API(cuMemAllocFromPoolAsync)(CUdeviceptr *pointer, size_t bytes, CUmemoryPool pool, CUstream stream);
FAAS_CUDA_API(cuMemPoolCreate)(CUmemoryPool *pool, const CUmemPoolProps *properties);
FAAS_CUDA_API(cuMemPoolDestroy)(CUmemoryPool pool);
FAAS_CUDA_API(cuMemAllocHost_v2)(void **pointer, size_t bytes);
FAAS_CUDA_API(cuMemFreeHost)(void *pointer);
FAAS_CUDA_API(cuMemcpyHtoD_v2)(CUdeviceptr to, const void *from, size_t bytes);
FAAS_CUDA_API(cuMemcpyDtoH_v2)(void *to, CUdeviceptr from, size_t bytes);
FAAS_CUDA_API(cuMemcpyDtoD_v2)(CUdeviceptr to, CUdeviceptr from, size_t bytes);
FAAS_CUDA_API(cuMemcpy)(CUdeviceptr to, CUdeviceptr from, size_t bytes);
FAAS_CUDA_API(cuMemcpyHtoDAsync_v2)(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
FAAS_CUDA_API(cuMemcpyDtoHAsync_v2)(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
FAAS_CUDA_API(cuMemcpyDtoDAsync_v2)(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
FAAS_CUDA_API(cuMemcpy2D_v2)(const CUDA_MEMCPY2D *copy);
FAAS_CUDA_API(cuMemcpy2DAsync_v2)(const CUDA_MEMCPY2D *copy, CUstream stream);
FAAS_CUDA_API(cuMemcpy3D_v2)(const CUDA_MEMCPY3D *copy);
FAAS_CUDA_API(cuMemsetD8_v2)(CUdeviceptr to, unsigned char value, size_t count);
FAAS_CUDA_API(cuMemsetD16_v2)(CUdeviceptr to, unsigned short value, size_t count);
FAAS_CUDA_API(cuMemsetD32_v2)(CUdeviceptr to, unsigned int value, size_t count);
FAAS_CUDA_API(cuMemsetD2D8_v2)(CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height);
FAAS_CUDA_API(cuMemsetD2D16_v2)(CUdeviceptr to, size_t pitch, unsigned short value, size_t width, size_t height);
FAAS_CUDA_API(cuMemsetD2D32_v2)(CUdeviceptr to, size_t pitch, unsigned int value, size_t width, size_t height);
FAAS_CUDA_API(cuMemsetD8Async)(CUdeviceptr to, unsigned char value, size_t count, CUstream stream);
FAAS_CUDA_API(cuMemsetD16Async)(CUdeviceptr to, unsigned short value, size_t count, CUstream stream);
FAAS_CUDA_API(cuMemsetD32Async)(CUdeviceptr to, unsigned int value, size_t count, CUstream stream);

// Modules, libraries, and functions.
FAAS_CUDA_API(cuModuleLoad)(CUmodule *module, const char *path);
FAAS_CUDA_API(cuModuleLoadData)(CUmodule *module, const void *image);
FAAS_CUDA_API(cuModuleLoadDataEx)(CUmodule *module, const void *image, unsigned int count, int *options, void **values);
FAAS_CUDA_API(cuModuleUnload)(CUmodule module);
FAAS_CUDA_API(cuModuleGetFunction)(CUfunction *function, CUmodule module, const char *name);
FAAS_CUDA_API(cuModuleGetGlobal_v2)(CUdeviceptr *pointer, size_t *bytes, CUmodule module, const char *name);
FAAS_CUDA_API(cuModuleGetFunctionCount)(unsigned int *count, CUmodule module);
FAAS_CUDA_API(cuLibraryLoadData)(CUlibrary *library, const void *code, int *jitOptions, void **jitValues, unsigned int jitCount, int *options, void **values, unsigned int count);
FAAS_CUDA_API(cuLibraryUnload)(CUlibrary library);
FAAS_CUDA_API(cuLibraryGetKernel)(CUkernel *kernel, CUlibrary library, const char *name);
FAAS_CUDA_API(cuLibraryGetModule)(CUmodule *module, CUlibrary library);
FAAS_CUDA_API(cuKernelGetFunction)(CUfunction *function, CUkernel kernel);
FAAS_CUDA_API(cuFuncGetAttribute)(int *value, int attribute, CUfunction function);
FAAS_CUDA_API(cuFuncGetParamInfo)(CUfunction function, size_t index, size_t *offset, size_t *size);

// Launches.
FAAS_CUDA_API(cuLaunchKernel)(CUfunction function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX, unsigned int blockY, unsigned int blockZ, unsigned int sharedBytes, CUstream stream, void **parameters, void **extra);
FAAS_CUDA_API(cuLaunchKernelEx)(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra);
FAAS_CUDA_API(cuLaunchCooperativeKernel)(CUfunction function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX, unsigned int blockY, unsigned int blockZ, unsigned int sharedBytes, CUstream stream, void **parameters);
FAAS_CUDA_API(cuOccupancyMaxActiveBlocksPerMultiprocessor)(int *blocks, CUfunction function, int blockSize, size_t sharedBytes);

// Streams and events.
FAAS_CUDA_API(cuStreamCreate)(CUstream *stream, unsigned int flags);
FAAS_CUDA_API(cuStreamCreateWithPriority)(CUstream *stream, unsigned int flags, int priority);
FAAS_CUDA_API(cuStreamDestroy_v2)(CUstream stream);
FAAS_CUDA_API(cuStreamSynchronize)(CUstream stream);
FAAS_CUDA_API(cuStreamQuery)(CUstream stream);
FAAS_CUDA_API(cuStreamWaitEvent)(CUstream stream, CUevent event, unsigned int flags);
FAAS_CUDA_API(cuStreamGetFlags)(CUstream stream, unsigned int *flags);
FAAS_CUDA_API(cuStreamGetPriority)(CUstream stream, int *priority);
FAAS_CUDA_API(cuEventCreate)(CUevent *event, unsigned int flags);
FAAS_CUDA_API(cuEventDestroy_v2)(CUevent event);
FAAS_CUDA_API(cuEventRecord)(CUevent event, CUstream stream);
FAAS_CUDA_API(cuEventQuery)(CUevent event);
FAAS_CUDA_API(cuEventSynchronize)(CUevent event);
FAAS_CUDA_API(cuEventElapsedTime)(float *milliseconds, CUevent start, CUevent end);

// Graphs.
FAAS_CUDA_API(cuStreamBeginCapture_v2)(CUstream stream, int mode);
FAAS_CUDA_API(cuStreamEndCapture)(CUstream stream, CUgraph *graph);
FAAS_CUDA_API(cuStreamIsCapturing)(CUstream stream, int *status);
FAAS_CUDA_API(cuGraphCreate)(CUgraph *graph, unsigned int flags);
FAAS_CUDA_API(cuGraphDestroy)(CUgraph graph);
FAAS_CUDA_API(cuGraphClone)(CUgraph *clone, CUgraph graph);
FAAS_CUDA_API(cuGraphAddKernelNode_v2)(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count, const CUDA_KERNEL_NODE_PARAMS *parameters);
FAAS_CUDA_API(cuGraphAddMemsetNode)(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count, const CUDA_MEMSET_NODE_PARAMS *parameters, CUcontext context);
FAAS_CUDA_API(cuGraphAddMemcpyNode)(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count, const CUDA_MEMCPY3D *parameters, CUcontext context);
FAAS_CUDA_API(cuGraphAddDependencies)(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count);
FAAS_CUDA_API(cuGraphGetNodes)(CUgraph graph, CUgraphNode *nodes, size_t *count);
FAAS_CUDA_API(cuGraphInstantiateWithFlags)(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
FAAS_CUDA_API(cuGraphLaunch)(CUgraphExec exec, CUstream stream);
FAAS_CUDA_API(cuGraphExecDestroy)(CUgraphExec exec);

// The names without versions, which programs use.
#define cuDeviceTotalMem cuDeviceTotalMem_v2
#define cuDeviceGetUuid cuDeviceGetUuid_v2
#define cuCtxCreate cuCtxCreate_v2
#define cuCtxDestroy cuCtxDestroy_v2
#define cuCtxPushCurrent cuCtxPushCurrent_v2
#define cuCtxPopCurrent cuCtxPopCurrent_v2
#define cuDevicePrimaryCtxRelease cuDevicePrimaryCtxRelease_v2
#define cuMemGetInfo cuMemGetInfo_v2
#define cuMemAlloc cuMemAlloc_v2
#define cuMemAllocPitch cuMemAllocPitch_v2
#define cuMemAllocHost cuMemAllocHost_v2
#define cuMemFree cuMemFree_v2
#define cuMemGetAddressRange cuMemGetAddressRange_v2
#define cuMemcpyHtoD cuMemcpyHtoD_v2
#define cuMemcpyDtoH cuMemcpyDtoH_v2
#define cuMemcpyDtoD cuMemcpyDtoD_v2
#define cuMemcpyHtoDAsync cuMemcpyHtoDAsync_v2
#define cuMemcpyDtoHAsync cuMemcpyDtoHAsync_v2
#define cuMemcpyDtoDAsync cuMemcpyDtoDAsync_v2
#define cuMemcpy2D cuMemcpy2D_v2
#define cuMemcpy2DAsync cuMemcpy2DAsync_v2
#define cuMemcpy3D cuMemcpy3D_v2
#define cuMemsetD8 cuMemsetD8_v2
#define cuMemsetD16 cuMemsetD16_v2
#define cuMemsetD32 cuMemsetD32_v2
#define cuMemsetD2D8 cuMemsetD2D8_v2
#define cuMemsetD2D16 cuMemsetD2D16_v2
#define cuMemsetD2D32 cuMemsetD2D32_v2
#define cuModuleGetGlobal cuModuleGetGlobal_v2
#define cuStreamDestroy cuStreamDestroy_v2
#define cuEventDestroy cuEventDestroy_v2
#define cuStreamBeginCapture cuStreamBeginCapture_v2
#define cuGraphAddKernelNode cuGraphAddKernelNode_v2
#define cuGraphInstantiate cuGraphInstantiateWithFlags

#ifdef __cplusplus
}
#endif
#endif
