/* Which accelerator really works here. `auto` starts a tiny guest with -accel kvm and a deadline: a /dev/kvm that
 * exists and hangs the guest is found out. The verdict is cached for the boot in PATH_RUN. Also QEMU's version. */
#pragma once

#include <uv.h>

#include "lib/err.h"

struct accel_info { char accel[8]; uint32_t qemu_version; char qemu_version_text[32]; char why[160]; };
typedef void (*accel_cb)(void *data, int rc, const struct accel_info *info, const struct err *err);
/* wanted: auto, kvm, tcg. kvm that does not work is an error. */
int accel_probe(uv_loop_t *loop, const char *binary, const char *wanted, accel_cb cb, void *data, struct err *err);
