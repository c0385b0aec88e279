/* SQLite's file system with faults: the power goes at the nth operation that changes a file, in the middle of it, and what was not
 * synced may be lost; or the disk is full. One test program includes it; all of its databases then go through it. */
#pragma once

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* What a file held before a write or truncate that is not synced yet. */
struct faulty_undo { struct faulty_undo *older; sqlite3_int64 at, size; int n; uint8_t old[]; };
struct faulty_file { sqlite3_file base; sqlite3_file *real; struct faulty_undo *unsynced; struct faulty_file *next; };

static struct {
	sqlite3_vfs vfs, *real;
	sqlite3_io_methods methods;
	atomic_long countdown;     /* at 0 the power goes; what is not above 0 never does */
	atomic_bool dead, full;    /* dead: every operation fails */
	long n_syncs;
	bool keeps_undo;           /* what is not synced may be lost */
	void (*on_death)(void);    /* may _exit(); NULL: goes on, dead */
	unsigned (*draw)(unsigned below);   /* how much of what was not synced is lost */
	struct faulty_file *files;
} faulty;

#define FAULTY_REAL(f) (((struct faulty_file *)(f))->real)

static inline sqlite3_int64 faulty_size_of(sqlite3_file *real)
{
	sqlite3_int64 size = 0;

	real->pMethods->xFileSize(real, &size);
	return size;
}

static inline void faulty_remember(sqlite3_file *f, sqlite3_int64 at, int n)
{
	struct faulty_file *file = (struct faulty_file *)f;
	struct faulty_undo *u;

	if (!faulty.keeps_undo)
		return;
	u = calloc(1, sizeof(*u) + (size_t)n);
	if (!u)
		abort();
	*u = (struct faulty_undo){.older = file->unsynced, .at = at, .n = n, .size = faulty_size_of(file->real)};
	/* Short behind the end: filled with zeros, and cut by the size. */
	file->real->pMethods->xRead(file->real, u->old, n, at);
	file->unsynced = u;
}

static inline void faulty_forget(struct faulty_file *file)
{
	while (file->unsynced) {
		struct faulty_undo *u = file->unsynced;

		file->unsynced = u->older;
		free(u);
	}
}

/* The newest go first; how many, is drawn for each file. */
static inline void faulty_lose_unsynced(struct faulty_file *file)
{
	unsigned n = 0, lost;

	for (struct faulty_undo *u = file->unsynced; u; u = u->older)
		n++;
	lost = n && faulty.draw ? faulty.draw(n + 1) : n;
	for (struct faulty_undo *u = file->unsynced; u && lost; u = u->older, lost--) {
		if (u->n)
			file->real->pMethods->xWrite(file->real, u->old, u->n, u->at);
		file->real->pMethods->xTruncate(file->real, u->size);
	}
	faulty_forget(file);
}

static inline bool faulty_power_fails(void)
{
	return atomic_fetch_sub(&faulty.countdown, 1) == 1;
}

static inline int faulty_die(void)
{
	faulty.dead = true;
	if (faulty.on_death)
		faulty.on_death();
	for (struct faulty_file *f = faulty.files; f; f = f->next)
		faulty_lose_unsynced(f);
	return SQLITE_IOERR;
}

static inline int faulty_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	bool dies;

	if (faulty.dead)
		return SQLITE_IOERR;
	if (faulty.full && at + n > faulty_size_of(FAULTY_REAL(f)))
		return SQLITE_FULL;
	dies = faulty_power_fails();
	faulty_remember(f, at, n);
	if (!dies)
		return FAULTY_REAL(f)->pMethods->xWrite(FAULTY_REAL(f), data, n, at);
	FAULTY_REAL(f)->pMethods->xWrite(FAULTY_REAL(f), data, n / 2, at);
	return faulty_die();
}

static inline int faulty_sync(sqlite3_file *f, int flags)
{
	faulty.n_syncs++;
	if (faulty.dead)
		return SQLITE_IOERR;
	if (faulty_power_fails())
		return faulty_die();
	faulty_forget((struct faulty_file *)f);
	/* What counts as on the disk is our book-keeping: the machine's disk need not be waited for. */
	if (faulty.keeps_undo)
		return SQLITE_OK;
	return FAULTY_REAL(f)->pMethods->xSync(FAULTY_REAL(f), flags);
}

static inline int faulty_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	sqlite3_int64 old = faulty_size_of(FAULTY_REAL(f));

	if (faulty.dead)
		return SQLITE_IOERR;
	if (faulty_power_fails())
		return faulty_die();
	faulty_remember(f, size, old > size ? (int)(old - size) : 0);
	return FAULTY_REAL(f)->pMethods->xTruncate(FAULTY_REAL(f), size);
}

static inline int faulty_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
	return faulty.dead ? SQLITE_IOERR : FAULTY_REAL(f)->pMethods->xRead(FAULTY_REAL(f), data, n, at);
}

static inline int faulty_close(sqlite3_file *f)
{
	struct faulty_file *file = (struct faulty_file *)f, **at = &faulty.files;

	while (*at && *at != file)
		at = &(*at)->next;
	if (*at)
		*at = file->next;
	faulty_forget(file);
	return file->real->pMethods->xClose(file->real);
}

static inline int faulty_size(sqlite3_file *f, sqlite3_int64 *s) { return FAULTY_REAL(f)->pMethods->xFileSize(FAULTY_REAL(f), s); }
static inline int faulty_lock(sqlite3_file *f, int l) { return FAULTY_REAL(f)->pMethods->xLock(FAULTY_REAL(f), l); }
static inline int faulty_unlock(sqlite3_file *f, int l) { return FAULTY_REAL(f)->pMethods->xUnlock(FAULTY_REAL(f), l); }
static inline int faulty_reserved(sqlite3_file *f, int *r) { return FAULTY_REAL(f)->pMethods->xCheckReservedLock(FAULTY_REAL(f), r); }
static inline int faulty_control(sqlite3_file *f, int op, void *a) { return FAULTY_REAL(f)->pMethods->xFileControl(FAULTY_REAL(f), op, a); }
static inline int faulty_sector(sqlite3_file *f) { return FAULTY_REAL(f)->pMethods->xSectorSize(FAULTY_REAL(f)); }
static inline int faulty_device(sqlite3_file *f) { return FAULTY_REAL(f)->pMethods->xDeviceCharacteristics(FAULTY_REAL(f)); }

static inline int faulty_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
	return faulty.dead ? SQLITE_IOERR : faulty.real->xDelete(faulty.real, name, sync_folder);
}

static inline int faulty_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	struct faulty_file *file = (struct faulty_file *)f;
	int rc;

	*file = (struct faulty_file){.real = (sqlite3_file *)(file + 1)};
	if (faulty.dead)
		return SQLITE_IOERR;
	rc = faulty.real->xOpen(faulty.real, name, file->real, flags, ret_flags);
	file->base.pMethods = file->real->pMethods ? &faulty.methods : NULL;
	if (file->base.pMethods) {
		file->next = faulty.files;
		faulty.files = file;
	}
	return rc;
}

/* From now on; the power goes at the operation with that number, counted from 1. 0: it does not. */
static inline void faulty_vfs_install(long at)
{
	faulty.countdown = at;
	if (faulty.real)
		return;
	faulty.real = sqlite3_vfs_find(NULL);
	faulty.vfs = *faulty.real;
	faulty.vfs.zName = "faulty";
	faulty.vfs.szOsFile = (int)sizeof(struct faulty_file) + faulty.real->szOsFile;
	faulty.vfs.xOpen = faulty_open;
	faulty.vfs.xDelete = faulty_delete;
	/* Version 1: no shared memory is needed, as the database is locked for one process. */
	faulty.methods = (sqlite3_io_methods){.iVersion = 1, .xClose = faulty_close, .xRead = faulty_read, .xWrite = faulty_write,
		.xTruncate = faulty_truncate, .xSync = faulty_sync, .xFileSize = faulty_size, .xLock = faulty_lock, .xUnlock = faulty_unlock,
		.xCheckReservedLock = faulty_reserved, .xFileControl = faulty_control, .xSectorSize = faulty_sector,
		.xDeviceCharacteristics = faulty_device};
	if (sqlite3_vfs_register(&faulty.vfs, 1) != SQLITE_OK)
		abort();
}
