/* Volumes of a pool. Names: [A-Za-z0-9._-], at most LIMIT_NAME_CHARS, not starting with a dot. Creation and deletion
 * call qemu-img on the loop (lib/subprocess.h) and check free space first. */
#pragma once

#include <uv.h>

#include "lib/err.h"
#include "proto/model.pb-c.h"

/* What QEMU and qemu-img open: "/srv/vm/web1.qcow2" or "nfs://10.79.0.254/pool/web1.qcow2". The file's name is
 * NAME.qcow2 or NAME.raw. Owner: caller (free). */
char *volume_uri(const Gantry__Pool *pool, const Gantry__Volume *volume);
char *volume_file_name(const Gantry__Volume *volume);
int volume_check_name(const char *name, struct err *err);

typedef void (*volume_cb)(void *data, int rc, uint64_t size_bytes, const struct err *err);
/* size_bytes given to the callback: as the guest sees it. -EEXIST if a file of that name is there; a raw one needs its whole size free. An unreachable pool is -EHOSTUNREACH naming the pool. Exactly one callback. */
int volume_create(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data, struct err *err);
/* Refused with -EBUSY while a lease on it is live. A volume that is not there is success. */
int volume_delete(uv_loop_t *loop, const Gantry__Pool *pool, const Gantry__Volume *volume, volume_cb cb, void *data, struct err *err);
