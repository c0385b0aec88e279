/* xl.cfg by tables: the grammar, disks, network cards, rates and numbers. Whole files: test_xlcfg_corpus.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/vdev.h"
#include "hypervisor/xlcfg.h"
#include "hypervisor/xlcfg_disk.h"
#include "hypervisor/xlcfg_vif.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

static char *join_warnings(const struct xlcfg_warnings *w)
{
	struct buf out = {0};

	for (size_t i = 0; i < w->n; i++)
		buf_printf(&out, "%s%s", i ? "\n" : "", w->lines[i]);
	char *text = str_dup(buf_str(&out));
	buf_free(&out);
	return text;
}

/* What a text comes to: the error, or the warnings, one a line. *ret_spec is NULL on an error. */
static char *parse(const char *text, const char *extra, Gantry__DomainSpec **ret_spec)
{
	struct xlcfg_warnings w = {0};
	struct err err = {0};
	const char *const args[] = {extra};
	char *result;

	*ret_spec = NULL;
	int rc = xlcfg_parse("f", text, strlen(text), args, extra ? 1 : 0, ret_spec, &w, &err);
	if (rc < 0) {
		assert_int_equal(rc, -EINVAL);
		assert_int_equal(err_status(&err, rc), GANTRY__STATUS__STATUS_BAD_DATA);
		assert_null(*ret_spec);
		result = str_dup(err.text);
	} else {
		result = join_warnings(&w);
	}
	xlcfg_warnings_free(&w);
	return result;
}

#define HVM "name='a';type='hvm';memory=64;vnc=0\n"

static void test_grammar_errors(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{"name=", "f:1:6: a value is missing before the end of the file"},
		{"name=\n", "f:1:6: a value is missing before the end of the line"},
		{"name 'a'", "f:1:6: '=' is missing after 'name', before a"},
		{"'name'='a'", "f:1:1: a line begins with a key, not with name"},
		{"name='a", "f:1:6: the string has no closing ' on this line"},
		{"name='a\nb'", "f:1:6: the string has no closing ' on this line"},
		{"name=\"a'", "f:1:6: the string has no closing \" on this line"},
		{"name='\\x41'", "f:1:7: unknown escape in a string; known are \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v"},
		{"name='\\101'", "f:1:7: unknown escape in a string; known are \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v"},
		{"name='a\\", "f:1:8: unknown escape in a string; known are \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v"},
		{"name='\xff'", "f:1:7: byte 0xff is not UTF-8; save the file as UTF-8"},
		{"name='a' 'b'", "f:1:10: the line should end before b"},
		{"name='a'\nName='b'", "f:2:1: 'Name': keys are written in lower case, and texts in quotes"},
		{"name='a'\nlocaltime=True", "f:2:11: 'True' is Python; write 1 for true, 0 for false"},
		{"name='a'\nlocaltime=yes", "f:2:11: 'yes' is no value: texts have to be quoted, true and false are 1 and 0"},
		{"rtc_timeoffset=-1", "f:1:16: a negative number has to be quoted: \"-1\""},
		{"name='a'\r\n", "f:1:9: the line ends with CR LF; save the file with LF line ends"},
		{"disk=[", "f:1:6: the list has no closing ']'"},
		{"disk=['a' 'b']", "f:1:11: ',' or ']' is missing in the list before b"},
		{"disk=[,]", "f:1:7: a value is missing before ','"},
		{"disk=['a',,'b']", "f:1:11: a value is missing before ','"},
		{"disk=['a';'b']", "f:1:10: ',' or ']' is missing in the list before ';'"},
		{"x=[[[[[[[[[1]]]]]]]]]", "f:1:11: lists are nested more than 8 deep"},
		{"name='a'\nname+=['b']", "f:2:1: 'name' is a single value at line 1 and can not be joined with a list"},
		{"import os\n", "f:1:8: '=' is missing after 'import', before os; this is an xm file in Python, which is never "
				"executed: write it in xl's syntax"},
		{"memory=4G", "f:1:9: 'G': keys are written in lower case, and texts in quotes"},
		{"memory=4m", "f:1:9: the line should end before m"},
		{"a%b", "f:1:2: unexpected '%'; texts have to be quoted"},
		{HVM "disk='a'", "f:2:1: 'disk' has to be a list: disk = [ '...' ]"},
		{HVM "disk=[['a']]", "f:2:7: item 1 of 'disk' is a list; it has to be a text in quotes"},
		{"name=['a']", "f:1:1: 'name' takes one value, not a list"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec;
		_cleanup_free_ char *got = parse(rows[i].text, NULL, &spec);
		assert_null(spec);
		assert_string_equal(got, rows[i].want);
	}
}

static void test_grammar_accepts(void **state)
{
	static const struct {
		const char *text, *extra, *cmdline;
	} rows[] = {
		{HVM "kernel='/k'\nextra='a' # b", NULL, "a"},
		{HVM "kernel='/k'; extra='a';;\n;", NULL, "a"},
		{HVM "kernel='/k'\nextra=\"a'b\\\"c\\\\d\\n\"", NULL, "a'b\"c\\d\n"},
		{HVM "kernel='/k'\nextra='a'\nextra='b'", NULL, "b"},
		{HVM "kernel='/k'\nextra+='a'\nextra+='b'", NULL, "ab"},
		{HVM "kernel='/k'\nextra=12", NULL, "12"},
		{HVM "kernel='/k'\nextra='a'", "extra='b'", "b"},
		{HVM "kernel='/k'\nextra='a'", "extra+='b'", "ab"},
		{HVM "kernel='/k'\nextra='a'", "extra=b c='d'", "b c='d'"},
		{HVM "kernel='/k'\nextra='a'", "extra+=b;c", "ab;c"},
		{HVM "kernel='/k'\nextra='a'", "extra=\"b\";vcpus=2", "b"},
		{HVM "kernel='/k'\nroot='/dev/x'\nextra='ro quiet'", NULL, "root=/dev/x ro quiet"},
		{HVM "kernel='/k'\nroot='/dev/x'", NULL, "root=/dev/x"},
		{HVM "kernel='/k'\n\t extra\t=\t'a'", NULL, "a"},
		{HVM "kernel='/k'\nextra='\xc3\xa4'", NULL, "\xc3\xa4"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec;
		_cleanup_free_ char *got = parse(rows[i].text, rows[i].extra, &spec);
		assert_string_equal(got, "");
		assert_string_equal(spec->cmdline, rows[i].cmdline);
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
}

static void test_key_errors_and_warnings(void **state)
{
	static const struct {
		const char *text, *extra, *want;
		bool ok;
	} rows[] = {
		{"memory=64", NULL, "f: the domain has no name; add a line like name = \"web1\""},
		{"name='a';memory=64", NULL,
		 "f: a pv domain needs 'kernel' or 'bootloader'; to boot a whole PC from its disk write type = \"hvm\""},
		{"name='a';type='h'", NULL, "f:1:15: 'type' is 'h', but has to be hvm, pv or pvh"},
		{"name='a';type='pv';builder='hvm'", NULL, "f:1:20: builder \"hvm\" contradicts type \"pv\"; remove 'builder'"},
		{"name='a';builder='hvm';memory=1", NULL, "f:1:10: 'builder' is outdated; write type=\"hvm\"", true},
		{HVM "memory='abc'", NULL, "f:2:8: 'memory': 'abc' is not a number and is ignored", true},
		{HVM "memory=08", NULL, "f:2:8: 'memory': '08' is not a number and is ignored", true},
		{HVM "memory=0", NULL, "f:2:8: 'memory' is 0, but has to be between 1 and 16777216"},
		{HVM "memory=99999999999999999999", NULL,
		 "f:2:8: 'memory': '99999999999999999999' is not a number and is ignored", true},
		{HVM "maxmem=32", NULL, "f:2:1: maxmem (32 MiB) is less than memory (64 MiB)"},
		{HVM "vcpus=4;maxvcpus=2", NULL, "f:2:9: maxvcpus (2) is less than vcpus (4)"},
		{HVM "vcpus=4", "maxvcpus=2", "argument 'maxvcpus=2':1:1: maxvcpus (2) is less than vcpus (4)"},
		{HVM "vcpus=4", "maxvcpus=", "argument 'maxvcpus=':1:10: a value is missing before the end of the file"},
		{HVM "memroy=1", NULL, "f:2:1: unknown key 'memroy' is ignored; did you mean 'memory'?", true},
		{HVM "frobnicate=[1,[2,[3]],4]", NULL, "f:2:1: unknown key 'frobnicate' is ignored", true},
		{HVM "vuart='sbsa'", NULL, "f:2:1: key 'vuart' has no effect on this platform", true},
		{HVM "acpi=1;apic=1;serial='pty';usb=0", NULL, "", true},
		{HVM "acpi=0", NULL, "f:2:1: key 'acpi' has no effect on this platform: it is always 1", true},
		{HVM "gantry_ha=1", NULL, "f:2:1: key 'gantry_ha' has no effect in a file; use 'create --no-ha'", true},
		{HVM "gantry_accel='fast'", NULL, "f:2:14: 'gantry_accel' is 'fast', but has to be auto, kvm or tcg"},
		{"name='a';kernel='/k';boot='n'", NULL, "f:1:22: key 'boot' has an effect only with type=\"hvm\"", true},
		{HVM "boot='ca'", NULL, "f:2:1: 'boot' has to be made of the letters c (disk), d (cdrom) and n (network)"},
		{HVM "on_crash='explode'", NULL,
		 "f:2:10: 'on_crash' is 'explode', but has to be destroy, restart, rename-restart, preserve, "
		 "coredump-destroy, coredump-restart or soft-reset"},
		{HVM "localtime='x'", NULL, "f:2:11: 'localtime' is 'x', but has to be 0 or 1"},
		{HVM "ramdisk='/r'", NULL, "f:2:1: 'ramdisk' needs 'kernel'"},
		{HVM "extra='x'", NULL, "f:2:1: the kernel's command line has no effect without 'kernel'", true},
		{HVM "kernel='/k';cmdline='x';extra='y'", NULL, "f:2:25: 'extra' is ignored, because 'cmdline' is set", true},
		{HVM "firmware='x'", NULL,
		 "f:2:1: 'firmware' is 'x', but has to be bios, seabios, uefi, ovmf or an absolute path"},
		{HVM "cpus='^all'", NULL, "f:2:6: 'cpus': '^all': '^all' would leave no processor"},
		{HVM "cpus='3-1'", NULL, "f:2:6: 'cpus': '3-1': not of the form [^][node:|nodes:](all|N[-M])"},
		{HVM "cpus='a'", NULL, "f:2:6: 'cpus': 'a': not of the form [^][node:|nodes:](all|N[-M])"},
		{HVM "cpus='0-3,^2,nodes:0-1,^node:1'", NULL, "", true},
		{HVM "cpu_weight=0", NULL, "f:2:12: 'cpu_weight' is 0, but has to be between 1 and 65535"},
		{HVM "disk=['/a,raw,xvda,w','/b,raw']", NULL,
		 "f:2:24: disk: no vdev: say as which disk the guest sees it, e.g. vdev=xvda"},
		{HVM "disk=['/a,raw,xvda,w,x']", NULL,
		 "f:2:22: disk: 'x' is too much: the places are target, format, vdev, access"},
		{HVM "vif=['mac=zz']", NULL, "f:2:7: vif: mac 'zz' is not of the form 00:16:3e:01:02:03"},
		{HVM "vif=['bridge=b, foo=1']", NULL, "f:2:17: vif: 'foo' is unknown and is ignored", true},
		{HVM "vfb=['vnc']", NULL, "f:2:7: vfb: 'vnc' is not of the form key=value"},
		{"name='a';kernel='/k';vfb=['sdl=1']", NULL, "f:1:28: vfb: 'sdl' has no effect on this platform", true},
		{"name='a';type='hvm';vnc=1;vfb=['vnc=1']", NULL, "f:1:27: 'vfb' has no effect beside 'vnc': the domain has one screen", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec;
		_cleanup_free_ char *got = parse(rows[i].text, rows[i].extra, &spec);
		assert_string_equal(got, rows[i].want);
		assert_int_equal(spec != NULL, rows[i].ok);
		if (spec)
			gantry__domain_spec__free_unpacked(spec, NULL);
	}
}

static char *disk_summary(const Gantry__Disk *d)
{
	static const char *const formats[] = {"raw", "qcow2", "qcow", "vhd", "qed", "empty"};

	return str_printf("%s %s%s%s%s %s%s%s%s%s%s%s", d->vdev, d->pool, d->pool[0] ? "|" : "", d->volume, d->path,
			  formats[d->format], d->readonly ? " ro" : "", d->cdrom ? " cdrom" : "", d->empty ? " empty" : "",
			  d->discard ? " discard" : "", d->direct_io_safe ? " direct" : "", d->script);
}

static void test_disks(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{"/vm/a.img,raw,xvda,rw", "xvda /vm/a.img raw"},
		{"/vm/a.img,,hda", "hda /vm/a.img raw"},
		{"/vm/a.img,qcow2,hda,r", "hda /vm/a.img qcow2 ro"},
		{"format=qcow2, vdev=xvdb, access=ro, target=/vm/a,b=c.img,", "xvdb /vm/a,b=c.img qcow2 ro"},
		{"vdev=xvda,/vm/a.img,raw", "xvda /vm/a.img raw"},
		{"format=raw,/vm/a.img,xvda,w", "xvda /vm/a.img raw"},
		{"file:/vm/a.img,xvda,w", "xvda /vm/a.img raw"},
		{"tap:aio:/vm/a.img,xvda1,w", "xvda1 /vm/a.img raw"},
		{"tap:qcow2:/vm/a.img,xvda,w", "xvda /vm/a.img qcow2"},
		{"phy:vg0/web,xvda,w", "xvda /dev/vg0/web raw"},
		{"phy:/dev/vg0/web,hda1,w", "hda1 /dev/vg0/web raw"},
		{"iscsi:iqn.x:y,xvda,w", "xvda iqn.x:y rawblock-iscsi"},
		{"vms/web1,qcow2,xvda,rw", "xvda vms|web1 qcow2"},
		{"target=vms/web1", "error: no vdev: say as which disk the guest sees it, e.g. vdev=xvda"},
		{"vdev=xvda,target=vms/web1", "xvda vms|web1 raw"},
		{"sdb,raw,xvda", "xvda /dev/sdb raw"},
		{"mapper/vg/web,raw,xvda", "xvda /dev/mapper/vg/web raw"},
		{"rbd:pool/x,raw,xvda", "xvda rbd:pool/x raw"},
		{"nfs:/x,raw,xvda", "error: unknown prefix 'nfs:'; a volume of a pool is written as POOL/VOLUME"},
		{"/iso/x.iso,raw,hdc,cdrom", "hdc /iso/x.iso raw ro cdrom"},
		{"/iso/x.iso,raw,hdc:cdrom,r", "hdc /iso/x.iso raw ro cdrom"},
		{",hdc:cdrom,r", "hdc  empty ro cdrom empty"},
		{",empty,hdc:cdrom,r", "hdc  empty ro cdrom empty"},
		{"cdrom,vdev=hdc", "hdc  empty ro cdrom empty"},
		{"devtype=cdrom,vdev=hdc,access=rw", "hdc  empty ro cdrom empty"},
		{"/a,raw,xvda,w,discard,direct-io-safe", "xvda /a raw discard direct"},
		{"/a,raw,xvda,no-discard,trusted", "xvda /a raw"},
		{"discard,no-discard,/a,raw,xvda", "error: 'discard' is given twice, with different meanings"},
		{"/a,raw,d1p2", "d1p2 /a raw"},
		{"/a,raw,51712", "51712 /a raw"},
		{"/a,raw,xvdA", "error: vdev 'xvdA' is no disk's name, such as xvda, sdb1 or hdc"},
		{"/a,raw,xvda0", "error: vdev 'xvda0' is no disk's name, such as xvda, sdb1 or hdc"},
		{",raw,xvda", "error: 'xvda' has no target; only a cdrom may be empty"},
		{"/a,lzma,xvda", "error: unknown format 'lzma'; known are raw, qcow2, qcow, vhd, qed, empty"},
		{"/a,raw,xvda,x", "error: unknown access 'x'; known are r, ro, w, rw"},
		{"format=raw,format=qcow2,/a,xvda", "error: the format is given twice, with different meanings"},
		{"format=raw,format=raw,/a,xvda", "xvda /a raw"},
		{"vdev=xvda,vdev=xvda,/a", "error: 'vdev' is given twice: 'xvda' and 'xvda'"},
		{",target=/a,vdev=xvda", "error: no vdev: say as which disk the guest sees it, e.g. vdev=xvda"},
		{"vdev=xvda,,target=/a", "xvda /a raw"},
		{"foo=1,/a,raw,xvda", "error: unknown parameter 'foo'; a target with '=' in it is written last, as target=..."},
		{"/dev/by=id,raw,xvda",
		 "error: unknown parameter '/dev/by'; a target with '=' in it is written last, as target=..."},
		{"/a,empty,xvda", "error: 'xvda' has format empty and the target '/a'; one of them has to go"},
		{"", "error: no vdev: say as which disk the guest sees it, e.g. vdev=xvda"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__Disk *disk = NULL;
		struct err err = {0};
		_cleanup_free_ char *got = NULL;
		if (xlcfg_disk_parse(rows[i].text, &disk, NULL, NULL, NULL, &err) < 0)
			got = str_printf("error: %s", err.text + strlen("disk: "));
		else
			got = disk_summary(disk);
		assert_string_equal(got, rows[i].want);
		if (disk)
			gantry__disk__free_unpacked(disk, NULL);
	}
}

static void test_vdevs(void **state)
{
	static const struct {
		const char *text;
		int family;
		uint32_t disk, partition;
	} rows[] = {
		{"xvda", VDEV_XVD, 0, 0},   {"xvdz", VDEV_XVD, 25, 0},	{"xvdaa", VDEV_XVD, 26, 0}, {"xvdba3", VDEV_XVD, 52, 3},
		{"sdb1", VDEV_SD, 1, 1},    {"hdc", VDEV_HD, 2, 0},	{"d0", VDEV_PLAIN, 0, 0},   {"d12p4", VDEV_PLAIN, 12, 4},
		{"51712", VDEV_XVD, 0, 0},  {"0xca11", VDEV_XVD, 1, 1}, {"2049", VDEV_SD, 0, 1},    {"5632", VDEV_HD, 2, 0},
		{"832", VDEV_HD, 1, 0},	    {"268435969", VDEV_XVD, 2, 1},
	};
	static const char *const bad[] = {"", "xvd", "xvda01", "xvda1x", "sda256", "d", "dp1", "d1p", "hd1", "zz", "1", "0x", "xvdzzzzzzzz",
					  "d99999999999"};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vdev got;
		assert_int_equal(vdev_parse(rows[i].text, &got), 0);
		assert_int_equal(got.family, rows[i].family);
		assert_int_equal(got.disk, rows[i].disk);
		assert_int_equal(got.partition, rows[i].partition);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vdev untouched = {VDEV_HD, 7, 7};
		assert_int_equal(vdev_parse(bad[i], &untouched), -EINVAL);
		assert_int_equal(untouched.disk, 7);
	}
}

static void test_rates(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		uint32_t interval;
	} rows[] = {
		{"10Mb/s", 62500, 50000},	{"10MB/s", 500000, 50000}, {"250KB/s@20ms", 5000, 20000},
		{"1Gb/s@1s", 125000000, 1000000}, {"1MB/s@1", 1000000, 1000000}, {"800b/s", 5, 50000},
		{"1MB/s@500us", 500, 500},	{"1MB/s@20m", 20000, 20000},
		{"10mb/s", 0, 0}, {"10Mb", 0, 0}, {"Mb/s", 0, 0}, {"10Mb/s@", 0, 0}, {"10Mb/s@x", 0, 0}, {"0Mb/s", 0, 0},
		{"1b/s", 0, 0}, {"99999999999999999999Gb/s", 0, 0}, {"18446744073709551615GB/s", 0, 0}, {"10Mb/s@4295s", 0, 0},
		{"10Mb/s@0ms", 0, 0}, {"-1Mb/s", 0, 0}, {"10Mb/s@20ms ", 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t bytes = 1;
		uint32_t interval = 1;
		struct err err = {0};
		int rc = xlcfg_rate_parse(rows[i].text, &bytes, &interval, &err);
		assert_int_equal(rc, rows[i].bytes ? 0 : -EINVAL);
		assert_int_equal(bytes, rows[i].bytes ? rows[i].bytes : 1);
		assert_int_equal(interval, rows[i].bytes ? rows[i].interval : 1);
		if (rc < 0)
			assert_non_null(strstr(err.text, rows[i].text));
	}
}

static void test_nics(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{"", "   0 0 "},
		{"mac=00:16:3E:AB:cd:01,bridge=br0", "00:16:3e:ab:cd:01 br0  0 0 "},
		{" bridge=a,  bridge=b, model=e1000,type=ioemu", " b e1000 0 1 "},
		{"mtu=9000,vlan=10p/20-30u/100+5x3u,devid=2,trusted", "   9000 0 10p/20-30u/100+5x3u"},
		{"type=x", "error: vif: type 'x' is neither ioemu nor vif"},
		{"mac=01:16:3e:00:00:01", "error: vif: mac 01:16:3e:00:00:01 is a multicast address; its first octet has to be even"},
		{"mac=00:16:3e:00:00", "error: vif: mac '00:16:3e:00:00' is not of the form 00:16:3e:01:02:03"},
		{"mac=00:16:3e:00:00:0 ", "error: vif: mac '00:16:3e:00:00:0 ' is not of the form 00:16:3e:01:02:03"},
		{"mtu=9", "error: vif: mtu '9' has to be a number from 68 to 65535"},
		{"vlan=0", "error: vif: vlan '0' is not made of V[p|u], A-B[u] or V+OFFSETxCOUNT[u], 1 to 4094, joined by '/'"},
		{"vlan=30-20", "error: vif: vlan '30-20' is not made of V[p|u], A-B[u] or V+OFFSETxCOUNT[u], 1 to 4094, joined by '/'"},
		{"vlan=4000+100x2",
		 "error: vif: vlan '4000+100x2' is not made of V[p|u], A-B[u] or V+OFFSETxCOUNT[u], 1 to 4094, joined by '/'"},
		{"vlan=1/", "error: vif: vlan '1/' is not made of V[p|u], A-B[u] or V+OFFSETxCOUNT[u], 1 to 4094, joined by '/'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__Nic *n = NULL;
		struct err err = {0};
		_cleanup_free_ char *got = NULL;
		if (xlcfg_vif_parse(rows[i].text, &n, NULL, NULL, NULL, &err) < 0)
			got = str_printf("error: %s", err.text);
		else
			got = str_printf("%s %s %s %u %d %s", n->mac, n->bridge, n->model, n->mtu, n->ioemu, n->vlan);
		assert_string_equal(got, rows[i].want);
		if (n)
			gantry__nic__free_unpacked(n, NULL);
	}
}

static void test_screens(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{"name='a';type='hvm'", "0 1 |"},
		{"name='a';type='hvm';vnc=0", ""},
		{"name='a';type='hvm';vncdisplay=5;vncunused=0;vnclisten='0.0.0.0'", "5 0 0.0.0.0|"},
		{"name='a';type='hvm';vnclisten='0.0.0.0:7'", "7 1 0.0.0.0|"},
		{"name='a';type='hvm';vnclisten='[::1]:7'", "7 1 ::1|"},
		{"name='a';type='hvm';vnclisten='::1'", "0 1 ::1|"},
		{"name='a';kernel='/k'", ""},
		{"name='a';kernel='/k';vnc=1", "0 1 |"},
		{"name='a';kernel='/k';vfb=['']", "0 1 |"},
		{"name='a';kernel='/k';vfb=['vnc=1, vncdisplay=3,vncpasswd=x=y,vncunused=0']", "3 0 |x=y"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec;
		_cleanup_free_ char *warnings = parse(rows[i].text, NULL, &spec);
		assert_string_equal(warnings, "");
		const Gantry__Display *d = spec->n_displays ? spec->displays[0] : NULL;
		_cleanup_free_ char *got = d ? str_printf("%u %d %s|%s", d->vnc_display, d->vnc_unused, d->vnc_listen,
							  d->vnc_password) :
					       str_dup("");
		assert_string_equal(got, rows[i].want);
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
}

/* virtio calls the disks vda, vdb...: a paravirtual guest's root is named accordingly. */
static void test_root_is_mapped(void **state)
{
	static const struct {
		const char *text, *cmdline;
	} rows[] = {
		{"disk=['/a,raw,xvda']\nroot='/dev/xvda1 ro'", "root=/dev/vda1 ro"},
		{"disk=['/a,raw,xvda']\nroot='/dev/xvda'", "root=/dev/vda"},
		{"disk=['/s,raw,xvdb','/a,raw,xvda2']\nroot='/dev/xvda2'\nextra='quiet'", "root=/dev/vda quiet"},
		{"disk=['/a,raw,sda1','/b,raw,sda2']\nroot='/dev/sda2'", "root=/dev/vdb"},
		{"disk=['/a,raw,xvda']\nroot='/dev/mapper/x'", "root=/dev/mapper/x"},
		{"disk=['/i,raw,xvda,cdrom','/a,raw,xvdb']\nroot='/dev/xvdb1'", "root=/dev/vda1"},
		{"disk=['/a,raw,xvda']\nroot='/dev/xvdb1'", "root=/dev/xvdb1"},
		{"disk=['/a,raw,xvda']\ncmdline='myroot=/dev/xvda1'", "myroot=/dev/xvda1"},
		{"disk=['/a,raw,xvda']\ncmdline='quiet root=/dev/xvda1 x'", "quiet root=/dev/vda1 x"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		Gantry__DomainSpec *spec;
		_cleanup_free_ char *text = str_printf("name='a';kernel='/k'\n%s", rows[i].text);
		_cleanup_free_ char *warnings = parse(text, NULL, &spec);
		assert_non_null(spec);
		assert_string_equal(spec->cmdline, rows[i].cmdline);
		assert_int_equal(warnings[0] != '\0', strstr(rows[i].cmdline, "/dev/vd") != NULL);
		gantry__domain_spec__free_unpacked(spec, NULL);
	}
}

static void test_affinity_list_of_one_pins_one(void **state)
{
	Gantry__DomainSpec *spec;
	_cleanup_free_ char *a = parse(HVM "vcpus=2;cpus=[0]", NULL, &spec);

	assert_int_equal(spec->n_cpus, 2);
	assert_string_equal(spec->cpus[0], "0");
	assert_string_equal(spec->cpus[1], "all");
	gantry__domain_spec__free_unpacked(spec, NULL);
	_cleanup_free_ char *b = parse(HVM "vcpus=2;cpus='0'", NULL, &spec);
	assert_int_equal(spec->n_cpus, 1);
	gantry__domain_spec__free_unpacked(spec, NULL);
	_cleanup_free_ char *c = parse(HVM "vcpus=2;cpus=['0','1','2']", NULL, &spec);
	assert_int_equal(spec->n_cpus, 2);
	gantry__domain_spec__free_unpacked(spec, NULL);
}

static void test_limits(void **state)
{
	struct buf text = {0};
	Gantry__DomainSpec *spec;

	buf_printf(&text, "name='a'\n");
	for (int i = 0; i < LIMIT_XLCFG_SETTINGS; i++)
		buf_printf(&text, "k%d=1\n", i);
	_cleanup_free_ char *keys = parse(buf_str(&text), NULL, &spec);
	assert_string_equal(keys, "f:1025:1: more than 1024 different keys");
	buf_free(&text);
	buf_printf(&text, "disk=[");
	for (int i = 0; i <= LIMIT_XLCFG_ITEMS; i++)
		buf_printf(&text, "1,\n");
	_cleanup_free_ char *items = parse(buf_str(&text), NULL, &spec);
	assert_string_equal(items, "f:1025:1: 'disk' has more than 1024 items");
	buf_free(&text);
	for (int i = 0; i <= 16; i++)
		buf_printf(&text, "extra+='%01000d'\n", i);
	_cleanup_free_ char *joined = parse(buf_str(&text), NULL, &spec);
	assert_string_equal(joined, "f:17:1: the value of 'extra' becomes longer than 16384 bytes");
	buf_free(&text);
	memset(buf_reserve(&text, LIMIT_XLCFG_BYTES + 1), '\n', LIMIT_XLCFG_BYTES + 1);
	text.len = LIMIT_XLCFG_BYTES + 1;
	_cleanup_free_ char *large = parse(buf_str(&text), NULL, &spec);
	assert_string_equal(large, "f:1:1: 1048577 bytes are more than a domain's file may have (1048576)");
	buf_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grammar_errors),
		cmocka_unit_test(test_grammar_accepts),
		cmocka_unit_test(test_key_errors_and_warnings),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_vdevs),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_nics),
		cmocka_unit_test(test_screens),
		cmocka_unit_test(test_root_is_mapped),
		cmocka_unit_test(test_affinity_list_of_one_pins_one),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
