#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/accel.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/paths.h"
#include "lib/subprocess.h"

#define ACCEL_VERSION_TIMEOUT_MS 10000
#define ACCEL_GUEST_TIMEOUT_MS 8000 /* a guest on hardware needs well under a second */
#define ACCEL_CACHE PATH_RUN "/accel"
#define ACCEL_CACHE_BYTES_MAX 512
#define ACCEL_DISK PATH_RUN "/accel-probe.img"
#define ACCEL_EXIT_CODE 0x2a
#define ACCEL_EXIT_STATUS (ACCEL_EXIT_CODE << 1 | 1) /* what isa-debug-exit makes of the code */

/* The guest is a boot sector. That a few instructions run proves little: there are hosts (nested, without the hardware's help) where
 * /dev/kvm emulates a guest's string copies one by one, and a Linux kernel never gets through its own decompression. So the guest does
 * what a kernel does first, in protected mode: it writes to each page of 224 MiB, then copies 16 MiB sixteen times. Real hardware needs
 * some tenths of a second, such a host more than half a minute. */
static const unsigned char guest_code[] = {
	0xfa,                                     /*     cli                      */
	0x31, 0xc0, 0x8e, 0xd8,                   /*     ds = 0                   */
	0x66, 0x0f, 0x01, 0x16, 0x70, 0x7c,       /*     lgdtl 0x7c70             */
	0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, /* cr0 |= 1 (protected)   */
	0x66, 0xea, 0x1b, 0x7c, 0x00, 0x00, 0x08, 0x00, /* jump 8:0x7c1b (32 bit) */
	0xb0, 0x10, 0x8e, 0xd8, 0x8e, 0xc0, 0xfc, /*     ds = es = 0x10; cld      */
	0xbf, 0x00, 0x00, 0x00, 0x01,             /*     edi = 16 MiB             */
	0x89, 0x3f,                               /* 1:  [edi] = edi              */
	0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,       /*     edi += 4096              */
	0x81, 0xff, 0x00, 0x00, 0x00, 0x0f,       /*     until edi = 240 MiB      */
	0x72, 0xf0,                               /*     jb 1b                    */
	0xbb, 0x10, 0x00, 0x00, 0x00,             /*     ebx = 16                 */
	0xbe, 0x00, 0x00, 0x00, 0x01,             /* 2:  esi = 16 MiB             */
	0xbf, 0x00, 0x00, 0x00, 0x02,             /*     edi = 32 MiB             */
	0xb9, 0x00, 0x00, 0x40, 0x00,             /*     ecx = 4 Mi words         */
	0xf3, 0xa5,                               /*     rep movsl                */
	0x4b, 0x75, 0xec,                         /*     ebx times                */
	0xb0, ACCEL_EXIT_CODE, 0xe6, 0xf4,        /*     out 0xf4, code           */
	0xf4, 0xeb, 0xfd,                         /* 3:  hlt; jmp 3b              */
	0x90,
	0, 0, 0, 0, 0, 0, 0, 0,                   /* 0x7c58: the descriptors: null, */
	0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0,       /*     code and                 */
	0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0,       /*     data of 4 GiB            */
	0x17, 0x00, 0x58, 0x7c, 0x00, 0x00,       /* 0x7c70: their table          */
};
#define GUEST_DESCRIPTORS_AT 0x58
_Static_assert(sizeof(guest_code) == GUEST_DESCRIPTORS_AT + 3 * 8 + 6, "the addresses in the code are those of its tables");

struct probe {
	uv_loop_t *loop;
	char *binary;
	char wanted[8];
	accel_cb cb;
	void *data;
	struct accel_info info;
};

int accel_version_parse(const char *line, uint32_t *ret, char *ret_text, size_t size)
{
	unsigned int major, minor, micro;
	const char *at = strstr(line, " version ");

	if (!at || sscanf(at, " version %u.%u.%u", &major, &minor, &micro) != 3 || major > 255 || minor > 255 || micro > 255)
		return -EINVAL;
	*ret = major << 16 | minor << 8 | micro;
	snprintf(ret_text, size, "%u.%u.%u", major, minor, micro);
	return 0;
}

static void probe_end(struct probe *p, int rc, const struct err *err)
{
	p->cb(p->data, rc, rc < 0 ? NULL : &p->info, err);
	free(p->binary);
	free(p);
}

static void choose(struct probe *p, bool kvm_works, const char *why)
{
	struct err err = {0};
	int rc = 0;

	snprintf(p->info.accel, sizeof(p->info.accel), "%s", kvm_works ? "kvm" : "tcg");
	snprintf(p->info.why, sizeof(p->info.why), "%s", why);
	if (!kvm_works && !strcmp(p->wanted, "kvm"))
		rc = err_set(&err, ENODEV, "accel kvm does not work on this host: %s; set 'accel: tcg' or 'auto' in %s", why, PATH_HOST_CONFIG);
	probe_end(p, rc, &err);
}

/* ---- the verdict of this boot: "VERSION kvm|tcg why" ---- */

static bool cache_read(struct probe *p)
{
	char version[32], accel[8];
	struct buf text = {0};
	bool found = false;
	int used = 0;

	if (atomic_file_read(ACCEL_CACHE, ACCEL_CACHE_BYTES_MAX, &text, NULL) == 0 &&
	    sscanf(buf_str(&text), "%31s %7s %n", version, accel, &used) == 2 && used && !strcmp(version, p->info.qemu_version_text)) {
		char *why = (char *)text.data + used;

		why[strcspn(why, "\n")] = '\0';
		found = true;
		choose(p, !strcmp(accel, "kvm"), why);
	}
	buf_free(&text);
	return found;
}

static void cache_write(const struct probe *p, bool kvm_works, const char *why)
{
	struct buf text = {0};

	buf_printf(&text, "%s %s %s\n", p->info.qemu_version_text, kvm_works ? "kvm" : "tcg", why);
	/* Without the cache the next start of the agent only probes again. */
	(void)atomic_file_write(ACCEL_CACHE, text.data, text.len, 0644, NULL);
	buf_free(&text);
}

/* ---- the guest ---- */

static void on_guest_ended(void *data, const struct subprocess_result *result)
{
	struct probe *p = data;
	char why[160];
	bool works = result->rc == 0 && result->exit_status == ACCEL_EXIT_STATUS;

	unlink(ACCEL_DISK);
	if (works)
		snprintf(why, sizeof(why), "a guest ran on /dev/kvm");
	else if (result->rc == -ETIMEDOUT)
		snprintf(why, sizeof(why), "/dev/kvm is there, but a guest on it hangs or crawls (not done in %d ms)", ACCEL_GUEST_TIMEOUT_MS);
	else if (result->rc < 0)
		snprintf(why, sizeof(why), "the test guest could not be run: %s", strerror(-result->rc));
	else
		snprintf(why, sizeof(why), "a guest on /dev/kvm failed: %.*s", (int)strcspn(result->err_out, "\n"),
			 *result->err_out ? result->err_out : "no message");
	cache_write(p, works, why);
	choose(p, works, why);
}

static int guest_run(struct probe *p, struct err *err)
{
	const char *const argv[] = {p->binary, "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config",
				    "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-blockdev",
				    "driver=file,node-name=d,filename=" ACCEL_DISK, "-device", "ide-hd,drive=d,bus=ide.0", NULL};
	const struct subprocess_options options = {.argv = argv, .timeout_ms = ACCEL_GUEST_TIMEOUT_MS};
	unsigned char sector[512] = {0};
	int rc;

	memcpy(sector, guest_code, sizeof(guest_code));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	rc = path_make_dirs(PATH_RUN, 0755, err);
	if (rc == 0)
		rc = atomic_file_write(ACCEL_DISK, sector, sizeof(sector), 0600, err);
	if (rc == 0)
		rc = subprocess_run(p->loop, &options, on_guest_ended, p, NULL, err);
	return rc;
}

static void on_version(void *data, const struct subprocess_result *result)
{
	struct probe *p = data;
	struct err err = {0};
	int rc;

	if (result->rc < 0 || result->exit_status != 0) {
		rc = err_set(&err, ENOEXEC, "%s --version failed: %s", p->binary, result->rc < 0 ? strerror(-result->rc) : result->err_out);
		probe_end(p, rc, &err);
		return;
	}
	if (accel_version_parse(result->out, &p->info.qemu_version, p->info.qemu_version_text, sizeof(p->info.qemu_version_text)) < 0) {
		rc = err_set(&err, EINVAL, "%s --version says no version: %.100s", p->binary, result->out);
		probe_end(p, rc, &err);
		return;
	}
	if (!strcmp(p->wanted, "tcg")) {
		choose(p, false, "asked for");
	} else if (access("/dev/kvm", F_OK) < 0) {
		choose(p, false, "there is no /dev/kvm");
	} else if (!cache_read(p)) {
		rc = guest_run(p, &err);
		if (rc < 0)
			probe_end(p, rc, &err);
	}
}

int accel_probe(uv_loop_t *loop, const char *binary, const char *wanted, accel_cb cb, void *data, struct err *err)
{
	const char *const argv[] = {binary, "--version", NULL};
	const struct subprocess_options options = {.argv = argv, .timeout_ms = ACCEL_VERSION_TIMEOUT_MS};
	struct probe *p;
	int rc;

	if (strcmp(wanted, "auto") && strcmp(wanted, "kvm") && strcmp(wanted, "tcg"))
		return err_set(err, EINVAL, "accel '%s' is unknown: use auto, kvm or tcg", wanted);
	p = mem_alloc(sizeof(*p));
	p->loop = loop;
	p->binary = str_dup(binary);
	snprintf(p->wanted, sizeof(p->wanted), "%s", wanted);
	p->cb = cb;
	p->data = data;
	rc = subprocess_run(loop, &options, on_version, p, NULL, err);
	if (rc < 0) {
		free(p->binary);
		free(p);
	}
	return rc;
}
