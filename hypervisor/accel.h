/* Which accelerator really works here. `auto` starts a tiny guest with -accel kvm and a deadline: a /dev/kvm that
 * exists and hangs the guest is found out. The verdict is cached for the boot in PATH_RUN. Also QEMU's version.
 * With `tcg` /dev/kvm is never touched. */
#pragma once

#include <stddef.h>
#include <uv.h>

#include "lib/err.h"

/* qemu_version: 0x070216 for 7.2.22. why: for people, how the accelerator was chosen. */
struct accel_info { char accel[8]; uint32_t qemu_version; char qemu_version_text[32]; char why[160]; };
typedef void (*accel_cb)(void *data, int rc, const struct accel_info *info, const struct err *err);
/* wanted: auto, kvm, tcg. kvm that does not work is an error. Fails at once and calls nothing back, or calls back once from the loop. */
int accel_probe(uv_loop_t *loop, const char *binary, const char *wanted, accel_cb cb, void *data, struct err *err);
/* The version in the first line of `QEMU --version`; -EINVAL. text: at least 32 bytes. */
int accel_version_parse(const char *line, uint32_t *ret, char *ret_text, size_t size);
