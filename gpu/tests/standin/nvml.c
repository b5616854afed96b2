/*
 * Stands in for libnvidia-ml.so.1 where there is no GPU: a whole device, and one in parts that refuses some figures.
 *
 * Written from nvml.h of CUDA 13 and not from the Rust bindings, so that a layout that is wrong there is seen. Each figure is a number of its own. What
 * goes wrong is chosen when it is compiled:
 *
 *   HANGS          power is never told
 *   FAILS_INIT     there is no driver
 *   FAILS_COUNT    it starts, and then tells nothing
 *   LACKS          it has none of the calls that tell figures
 *   LACKS_INIT     it has nothing at all
 *   LACKS_SHUTDOWN it cannot be ended
 *   LOCKED         a third device, which this user may not open
 *   NONSENSE       more devices than there can be, names that are no text, figures out of range
 *   COUNTS         the temperature is how often it was asked what devices there are
 */
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25
};

typedef struct device { const char *uuid, *name, *bus; int number; } *nvmlDevice_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

enum { WHOLE, DIVIDED, PART };
static struct device devices[] = {
    { "GPU-0a0a0a0a-1111-2222-3333-444444444444", "NVIDIA H100 80GB HBM3", "00000000:1B:00.0", WHOLE },
    { "GPU-0b0b0b0b-1111-2222-3333-444444444444", "NVIDIA A100-SXM4-40GB", "00000000:43:00.0", DIVIDED },
    { "MIG-0c0c0c0c-1111-2222-3333-444444444444", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 0, PART },
};
static int started;
static unsigned asked;

static int text(const char *from, char *to, unsigned length) {
    if (strlen(from) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

#ifndef LACKS_INIT

int nvmlInit_v2(void) {
#ifdef FAILS_INIT
    return DRIVER_NOT_LOADED;
#else
    started += 1;
    return SUCCESS;
#endif
}

#ifndef LACKS_SHUTDOWN
int nvmlShutdown(void) {
    if (!started) return UNINITIALIZED;
    started -= 1;
    return SUCCESS;
}
#endif

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!started) return UNINITIALIZED;
    asked += 1;
#ifdef FAILS_COUNT
    return GPU_IS_LOST;
#endif
    *count = 2;
#ifdef LOCKED
    *count = 3;
#endif
#ifdef NONSENSE
    *count = 0xffffffffu;
#endif
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    if (!started) return UNINITIALIZED;
#ifdef LOCKED
    if (index == 2) return NO_PERMISSION;
#endif
    if (index >= 2) return INVALID_ARGUMENT;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned length) { return text(device->uuid, uuid, length); }

#ifndef LACKS

int nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
#ifdef NONSENSE
    if (device->number == WHOLE) return text("\xff\xfe", name, length);
#endif
    return text(device->name, name, length);
}

int nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    if (!device->bus) return NOT_SUPPORTED;
    memset(pci, 0, sizeof *pci);
    return text(device->bus, pci->busId, sizeof pci->busId);
}

int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    if (device->number != WHOLE) return NOT_SUPPORTED;
    rates->gpu = 37;
    rates->memory = 11;
#ifdef NONSENSE
    rates->gpu = 4000000000u;
#endif
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    if (memory->version != (sizeof *memory | (2u << 24))) return ARGUMENT_VERSION_MISMATCH;
    if (device->number == DIVIDED) return NO_PERMISSION;
    memory->total = device->number == WHOLE ? 85899345920ull : 5100273664ull;
    memory->reserved = 3000000ull;
    memory->used = device->number == WHOLE ? 1610612736ull : 13631488ull;
    memory->free = memory->total - memory->used - memory->reserved;
#ifdef NONSENSE
    memory->total = 0;
#endif
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
#ifdef HANGS
    for (;;) pause();
#endif
    if (device->number != WHOLE) return NOT_SUPPORTED;
    *milliwatts = 123456;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    if (sensor != 0) return INVALID_ARGUMENT;
    if (device->number == PART) return NOT_SUPPORTED;
    *celsius = device->number == WHOLE ? 41 : 55;
#ifdef COUNTS
    *celsius = asked;
#endif
    return SUCCESS;
}

int nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    if (device->number == PART) return NOT_SUPPORTED;
    *current = *pending = device->number == DIVIDED;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    *count = device->number == DIVIDED ? 7 : 0;
    return SUCCESS;
}

/* The places before a part may be empty. */
int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *part) {
    if (device->number != DIVIDED || index >= 7) return INVALID_ARGUMENT;
    if (index != 2) return NOT_FOUND;
    *part = &devices[2];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned *id) {
    if (device->number != PART) return NOT_SUPPORTED;
    *id = 9;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned *id) {
    if (device->number != PART) return NOT_SUPPORTED;
    *id = 0;
    return SUCCESS;
}

#endif
#endif
