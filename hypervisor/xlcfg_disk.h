/* One disk as xl writes it: "/vm/web.qcow2,qcow2,xvda,rw", "format=raw, vdev=hda, target=/dev/vg/web",
 * "vms/web1,qcow2,xvda" (a pool's volume). Pure. Owner of *ret: caller. */
#pragma once

#include <stddef.h>

#include "lib/err.h"
#include "proto/domain.pb-c.h"

/* Something that has no effect, at a byte offset in the text. */
typedef void (*xlcfg_note_fn)(void *data, size_t offset, const char *text);

/* -EINVAL: err says what, *ret_offset says where. note may be NULL. */
int xlcfg_disk_parse(const char *text, Gantry__Disk **ret, size_t *ret_offset, xlcfg_note_fn note, void *data,
		     struct err *err);
