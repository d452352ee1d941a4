/* A libcuda.so.1 for a machine without a GPU: what tensorrt/cuda.py calls, on the host's memory, for tests alone.
 *
 * Work on a stream is queued and done as late as CUDA allows: when somebody waits for it. So whoever reads a result
 * without waiting, or overwrites what has not been copied yet, gets wrong values here every time, which a GPU does now
 * and then. Streams named by their number in HOST_CUDA_EAGER ("02": the first and the third) do theirs at once, the
 * other extreme. Each call checks that the thread has a context, and that memory is the caller's.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "label_map.cu"

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, ILLEGAL_ADDRESS = 700 };
enum { COPY, CALL, KERNEL, RECORD, WAIT };

typedef unsigned long long address;
typedef void (*host_function)(void *);

struct stream;
struct work {
    int kind;
    void *to;
    const void *from;
    size_t bytes;
    host_function call;
    void *data;
    struct stream *other;
    unsigned long until;
    address pointers[7];
    int numbers[5];
    struct work *next;
};
struct stream { struct work *first, *last, *captured, *captured_last; unsigned long queued, done; int capturing, eager; };
struct event { struct stream *stream; unsigned long position; };
struct block { char *start; size_t bytes; struct block *next; };

static pthread_mutex_t lock;
static struct block *blocks;
static int live, initialized, num_streams, kernels_run, graphs_run;
static __thread int has_context;

__attribute__((constructor)) static void make_lock(void)
{
    pthread_mutexattr_t kind;

    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);  /* host functions may call back */
    pthread_mutex_init(&lock, &kind);
}

/* What a test asks: objects and memory that nobody has given back, kernels and graphs that have run. */
int host_cuda_live(void) { return live; }
int host_cuda_kernels(void) { return kernels_run; }
int host_cuda_graphs(void) { return graphs_run; }

static int owned(const void *memory, size_t bytes)
{
    const char *start = memory;
    struct block *block;

    for (block = blocks; block; block = block->next)
        if (start >= block->start && start + bytes <= block->start + block->bytes)
            return 1;
    return 0;
}

static int new_block(void **memory, size_t bytes)
{
    struct block *block = malloc(sizeof *block);

    if (!has_context)
        return INVALID_CONTEXT;
    block->start = malloc(bytes);
    block->bytes = bytes;
    memset(block->start, 0xA5, bytes);  /* as good as what a GPU's memory holds at first */
    pthread_mutex_lock(&lock);
    block->next = blocks;
    blocks = block;
    live++;
    pthread_mutex_unlock(&lock);
    *memory = block->start;
    return SUCCESS;
}

static int free_block(void *memory)
{
    struct block **at, *block;
    int status = INVALID_VALUE;

    if (!has_context)
        return INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    for (at = &blocks; *at; at = &(*at)->next)
        if ((*at)->start == memory) {
            block = *at;
            *at = block->next;
            free(block->start);
            free(block);
            live--;
            status = SUCCESS;
            break;
        }
    pthread_mutex_unlock(&lock);
    return status;
}

static void run_until(struct stream *stream, unsigned long position);

static void run(struct work *work)
{
    const address *at = work->pointers;
    const int *n = work->numbers;

    switch (work->kind) {
    case COPY:
        memcpy(work->to, work->from, work->bytes);
        break;
    case CALL:
        work->call(work->data);
        break;
    case KERNEL:
        label_map((const float *)at[0], n[0], n[1], n[2], (const int *)at[1], (const float *)at[2], n[3],
                  (const int *)at[3], (const float *)at[4], n[4], (unsigned char *)at[5], (float *)at[6]);
        kernels_run++;
        break;
    case WAIT:
        run_until(work->other, work->until);
        break;
    }
}

static void run_until(struct stream *stream, unsigned long position)
{
    struct work *work;

    while (stream && stream->done < position && stream->first) {
        work = stream->first;
        stream->first = work->next;
        run(work);
        stream->done++;
        free(work);
    }
}

static int queue(struct stream *stream, struct work work)
{
    struct work *copy;

    if (!has_context)
        return INVALID_CONTEXT;
    copy = malloc(sizeof *copy);
    pthread_mutex_lock(&lock);
    *copy = work;
    copy->next = NULL;
    if (stream->capturing) {
        if (stream->captured)
            stream->captured_last->next = copy;
        else
            stream->captured = copy;
        stream->captured_last = copy;
    } else {
        if (stream->first)
            stream->last->next = copy;
        else
            stream->first = copy;
        stream->last = copy;
        stream->queued++;
        if (stream->eager)
            run_until(stream, stream->queued);
    }
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int copy(struct stream *stream, void *to, const void *from, size_t bytes)
{
    struct work work = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
    int legal;

    pthread_mutex_lock(&lock);
    legal = owned(to, bytes) && owned(from, bytes);
    pthread_mutex_unlock(&lock);
    return legal ? queue(stream, work) : ILLEGAL_ADDRESS;
}

int cuInit(unsigned flags) { initialized = 1; return flags ? INVALID_VALUE : SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 12090; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return initialized ? SUCCESS : NOT_INITIALIZED; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? INVALID_DEVICE : SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, length, "Host"); return SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;  /* compute capability 8.9 */
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; live++; *context = &live; return SUCCESS; }
int cuDevicePrimaryCtxRelease(int device) { (void)device; live--; return SUCCESS; }
int cuCtxSetCurrent(void *context) { has_context = context != NULL; return SUCCESS; }

int cuMemAlloc(address *memory, size_t bytes) { return new_block((void **)memory, bytes); }
int cuMemFree(address memory) { return free_block((void *)memory); }
int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { (void)flags; return new_block(memory, bytes); }
int cuMemFreeHost(void *memory) { return free_block(memory); }

int cuMemcpyHtoDAsync(address to, const void *from, size_t bytes, struct stream *stream)
{
    return copy(stream, (void *)to, from, bytes);
}

int cuMemcpyDtoHAsync(void *to, address from, size_t bytes, struct stream *stream)
{
    return copy(stream, to, (const void *)from, bytes);
}

int cuMemcpyDtoDAsync(address to, address from, size_t bytes, struct stream *stream)
{
    return copy(stream, (void *)to, (const void *)from, bytes);
}

int cuStreamCreate(struct stream **stream, unsigned flags)
{
    const char *eager = getenv("HOST_CUDA_EAGER");

    (void)flags;
    if (!has_context)
        return INVALID_CONTEXT;
    *stream = calloc(1, sizeof **stream);
    (*stream)->eager = eager && strchr(eager, '0' + num_streams % 3);
    num_streams++;
    live++;
    return SUCCESS;
}

int cuStreamSynchronize(struct stream *stream)
{
    pthread_mutex_lock(&lock);
    run_until(stream, stream->queued);
    pthread_mutex_unlock(&lock);
    return has_context ? SUCCESS : INVALID_CONTEXT;
}

int cuStreamDestroy(struct stream *stream) { free(stream); live--; return SUCCESS; }
int cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags)
{
    struct work work = {.kind = WAIT, .other = event->stream, .until = event->position};

    (void)flags;
    return stream->capturing ? CAPTURE_UNSUPPORTED : queue(stream, work);
}

int cuEventCreate(struct event **event, unsigned flags)
{
    (void)flags;
    *event = calloc(1, sizeof **event);
    live++;
    return has_context ? SUCCESS : INVALID_CONTEXT;
}

int cuEventRecord(struct event *event, struct stream *stream)
{
    struct work work = {.kind = RECORD};
    int status = stream->capturing ? CAPTURE_UNSUPPORTED : queue(stream, work);

    event->stream = stream;
    event->position = stream->queued;
    return status;
}

int cuEventSynchronize(struct event *event)
{
    pthread_mutex_lock(&lock);
    run_until(event->stream, event->position);
    pthread_mutex_unlock(&lock);
    return has_context ? SUCCESS : INVALID_CONTEXT;
}

int cuEventDestroy(struct event *event) { free(event); live--; return SUCCESS; }

int cuStreamBeginCapture(struct stream *stream, int mode)
{
    (void)mode;
    if (stream->capturing || getenv("HOST_CUDA_NO_GRAPHS"))
        return CAPTURE_UNSUPPORTED;
    stream->capturing = 1;
    stream->captured = NULL;
    return SUCCESS;
}

int cuStreamEndCapture(struct stream *stream, struct work **graph)
{
    if (!stream->capturing)
        return CAPTURE_UNSUPPORTED;
    stream->capturing = 0;
    *graph = stream->captured;
    live++;
    return SUCCESS;
}

int cuGraphInstantiateWithFlags(struct work **instance, struct work *graph, unsigned long long flags)
{
    *instance = graph;
    live++;
    return flags ? INVALID_VALUE : SUCCESS;
}

int cuGraphDestroy(struct work *graph) { (void)graph; live--; return SUCCESS; }

int cuGraphExecDestroy(struct work *graph)
{
    struct work *next;

    for (; graph; graph = next) {
        next = graph->next;
        free(graph);
    }
    live--;
    return SUCCESS;
}

int cuGraphLaunch(struct work *graph, struct stream *stream)
{
    graphs_run++;
    for (; graph; graph = graph->next)
        if (queue(stream, *graph))
            return INVALID_CONTEXT;
    return SUCCESS;
}

int cuLaunchHostFunc(struct stream *stream, host_function call, void *data)
{
    struct work work = {.kind = CALL, .call = call, .data = data};

    return queue(stream, work);
}

int cuModuleLoadData(void **module, const void *image)
{
    *module = &live;
    live++;
    return memcmp(image, "\177ELF", 4) ? INVALID_VALUE : has_context ? SUCCESS : INVALID_CONTEXT;
}

int cuModuleUnload(void *module) { (void)module; live--; return SUCCESS; }

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    return strcmp(name, "label_map") ? NOT_FOUND : SUCCESS;
}

/* The one kernel there is, with the grid that covers its pixels and no more blocks than that. */
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, struct stream *stream, void **arguments, void **extra)
{
    static const char kinds[] = "pnnnppnppnpp";
    struct work work = {.kind = KERNEL};
    int index, pointers = 0, numbers = 0;
    unsigned rows, columns;

    (void)shared_bytes;
    for (index = 0; kinds[index]; index++)
        if (kinds[index] == 'p')
            work.pointers[pointers++] = *(address *)arguments[index];
        else
            work.numbers[numbers++] = *(int *)arguments[index];
    rows = work.numbers[3];
    columns = work.numbers[4];
    if (function != &live || extra || grid_z != 1 || block_z != 1 || grid_x != (columns + block_x - 1) / block_x ||
        grid_y != (rows + block_y - 1) / block_y || block_x * block_y > 1024)
        return INVALID_VALUE;
    return queue(stream, work);
}

int cuGetErrorString(int status, const char **text)
{
    *text = status == INVALID_CONTEXT ? "invalid device context" : "an error of the host's CUDA";
    return SUCCESS;
}

int cuGetErrorName(int status, const char **text) { (void)status; *text = "CUDA_ERROR"; return SUCCESS; }

/* NVRTC asks the driver for a table of functions that nobody has documented: one with no entry but its size. */
int cuGetExportTable(const void **table, const void *id)
{
    static const size_t empty[1] = {sizeof(size_t)};

    (void)id;
    *table = empty;
    return SUCCESS;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status)
{
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);

    (void)version;
    (void)flags;
    *function = self ? dlsym(self, name) : NULL;
    if (status)
        *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
