#include "clusterctl/host_setup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clusterctl/units.h"
#include "lib/atomic_file.h"
#include "lib/cleanup.h"
#include "lib/corosync_conf.h"
#include "lib/hostconf.h"
#include "lib/paths.h"
#include "proto/model.pb-c.h"
#include "proto/tls.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x
#define PATH_PKI PATH_CONFIG "/pki"
#define COROSYNC_CONF_MAX (256u << 10)
#define MEMORY_RESERVE_MIB 512

int host_setup_check_user(struct err *err)
{
	if (geteuid() != 0)
		return err_set_status(err, EPERM, STATUS(PERMISSION), "this changes the host's own set-up: run clusterctl as root");
	return 0;
}

/* ---- what the options leave out */

static int find_name(char **ret, struct err *err)
{
	char name[256] = "";

	if (gethostname(name, sizeof(name) - 1) < 0)
		return err_set(err, errno, "this host's name is not known: %s; give --host-name", strerror(errno));
	name[strcspn(name, ".")] = '\0';
	*ret = str_dup(name);
	return 0;
}

static void address_text(const struct sockaddr *address, char text[INET6_ADDRSTRLEN])
{
	text[0] = '\0';
	if (address->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, INET6_ADDRSTRLEN);
	else if (address->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)address)->sin6_addr))
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, INET6_ADDRSTRLEN);
}

/* The host's only address of the family; with several the user has to choose. */
static int find_address_of(int family, char **ret, struct buf *all, struct err *err)
{
	struct ifaddrs *list;
	char text[INET6_ADDRSTRLEN];
	size_t n = 0;

	if (getifaddrs(&list) < 0)
		return err_set(err, errno, "this host's addresses are not known: %s; give --address", strerror(errno));
	for (struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
		if (i->ifa_addr == NULL || i->ifa_addr->sa_family != family || (i->ifa_flags & IFF_LOOPBACK))
			continue;
		address_text(i->ifa_addr, text);
		if (text[0] == '\0')
			continue;
		buf_printf(all, "%s%s", all->len ? ", " : "", text);
		if (n++ == 0)
			*ret = str_dup(text);
	}
	freeifaddrs(list);
	if (n > 1) {
		free(*ret);
		*ret = NULL;
	}
	return 0;
}

static int find_address(char **ret, struct err *err)
{
	struct buf all = {0};
	char *address = NULL;
	int rc = find_address_of(AF_INET, &address, &all, err);

	if (rc == 0 && all.len == 0)
		rc = find_address_of(AF_INET6, &address, &all, err);
	if (rc == 0 && address == NULL)
		rc = err_set_status(err, EINVAL, STATUS(USAGE), all.len ?
				    "this host has several addresses (%s): choose one that the other hosts reach, with --address" :
				    "this host has no address%s: give --address", buf_str(&all));
	buf_free(&all);
	if (rc == 0)
		*ret = address;
	return rc;
}

static int check_address(const char *address, struct err *err)
{
	uint8_t binary[16];

	if (inet_pton(AF_INET, address, binary) != 1 && inet_pton(AF_INET6, address, binary) != 1)
		return err_set_status(err, EINVAL, STATUS(USAGE), "--address '%.60s' is no IP address", address);
	return 0;
}

static int check_interface(const char *option, const char *name, struct err *err)
{
	if (name[0] == '\0' || strlen(name) >= IFNAMSIZ || strpbrk(name, "/ \t\n") != NULL)
		return err_set_status(err, EINVAL, STATUS(USAGE), "%s '%.40s' is no interface's name", option, name);
	return 0;
}

int host_setup_read(struct invocation *inv, struct host_setup *ret)
{
	const char *name = invocation_option(inv, "host-name"), *address = invocation_option(inv, "address");
	const char *bridge = invocation_option(inv, "bridge"), *uplink = invocation_option(inv, "uplink");
	const char *accel = invocation_option(inv, "accel"), *watchdog = invocation_option(inv, "watchdog");
	struct host_setup s = {.force = invocation_option(inv, "force") != NULL};
	struct err *err = &inv->err;
	int rc = 0;

	if (name != NULL)
		s.name = str_dup(name);
	else
		rc = find_name(&s.name, err);
	if (rc == 0 && !pki_host_name_ok(s.name))
		rc = err_set_status(err, EINVAL, STATUS(USAGE), "'%.60s' is no name for a host: letters, digits, '-', '.' and '_'; give "
				    "--host-name", s.name);
	if (rc == 0 && address != NULL)
		s.address = str_dup(address);
	else if (rc == 0)
		rc = find_address(&s.address, err);
	if (rc == 0)
		rc = check_address(s.address, err);
	if (rc == 0 && bridge != NULL)
		rc = check_interface("--bridge", bridge, err);
	if (rc == 0 && uplink != NULL)
		rc = check_interface("--uplink", uplink, err);
	if (rc == 0 && accel != NULL && strcmp(accel, "auto") && strcmp(accel, "kvm") && strcmp(accel, "tcg"))
		rc = err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_USAGE, "--accel: '%s' is none of auto, kvm and tcg", accel);
	if (rc == 0 && watchdog != NULL && watchdog[0] != '/')
		rc = err_set_status(err, EINVAL, STATUS(USAGE), "--watchdog '%.60s' is no absolute path of a device, such as /dev/watchdog",
				    watchdog);
	if (rc < 0) {
		host_setup_clear(&s);
		return rc;
	}
	s.bridge = str_dup(bridge ? bridge : "gbr0");
	s.uplink = str_dup(uplink ? uplink : "");
	s.watchdog = str_dup(watchdog ? watchdog : "");
	s.accel = str_dup(accel ? accel : "auto");
	*ret = s;
	return 0;
}

void host_setup_clear(struct host_setup *s)
{
	free(s->name);
	free(s->address);
	free(s->bridge);
	free(s->uplink);
	free(s->watchdog);
	free(s->accel);
	*s = (struct host_setup){0};
}

/* ---- what is there already */

bool host_setup_exists(void)
{
	return access(PATH_HOST_CONFIG, F_OK) == 0;
}

/* Nothing of a former cluster is deleted: it may be all that is left of it. */
static int set_aside(const char *path, struct err *err)
{
	_cleanup_free_ char *aside = str_printf("%s.before-%lld", path, (long long)time(NULL));

	if (access(path, F_OK) < 0)
		return 0;
	if (rename(path, aside) < 0)
		return err_set(err, errno, "%s cannot be renamed to %s: %s", path, aside, strerror(errno));
	fprintf(stderr, "clusterctl: %s is kept as %s\n", path, aside);
	return 0;
}

int host_setup_set_aside(struct err *err)
{
	static const char *const paths[] = {PATH_HOST_CONFIG, PATH_CLUSTER_DB, PATH_CLUSTER_DB "-wal", PATH_CLUSTER_DB "-shm",
					    PATH_PKI_CA, PATH_PKI_CA_KEY, PATH_PKI_CERT, PATH_PKI_KEY};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(paths); i++)
		rc = set_aside(paths[i], err);
	return rc;
}

/* The example that Debian's package brings: one node on the loopback. */
static bool is_example(const char *text)
{
	return strstr(text, "cluster_name: debian") != NULL && strstr(text, "ring0_addr: 127.0.0.1") != NULL;
}

int host_setup_take_corosync(const struct host_setup *s, struct err *err)
{
	struct buf text = {0};
	int rc = atomic_file_read(PATH_COROSYNC_CONF, COROSYNC_CONF_MAX, &text, err);

	if (rc == -ENOENT) {
		buf_free(&text);
		return 0;
	}
	if (rc == 0 && !s->force && !is_example(buf_str(&text)) && strstr(buf_str(&text), "Written by gantry") == NULL)
		rc = err_set_status(err, EEXIST, STATUS(NEEDS_FORCE),
				    "%s is there already, of a cluster that is not ours; --force sets it aside and takes its place",
				    PATH_COROSYNC_CONF);
	buf_free(&text);
	return rc < 0 ? rc : set_aside(PATH_COROSYNC_CONF, err);
}

/* ---- writing */

void host_identity_free(struct host_identity *id)
{
	struct buf *const secrets[] = {&id->key, &id->ca_key, &id->authkey};

	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		if (secrets[i]->data != NULL)
			explicit_bzero(secrets[i]->data, secrets[i]->len);
	buf_free(&id->ca);
	buf_free(&id->cert);
	buf_free(&id->key);
	buf_free(&id->authkey);
	buf_free(&id->corosync_conf);
	buf_free(&id->ca_key);
}

static int make_folders(struct err *err)
{
	static const struct {
		const char *path;
		mode_t mode;
	} folders[] = {{PATH_CONFIG, 0755}, {PATH_PKI, 0755}, {PATH_STATE, 0700}, {PATH_LOG, 0750}, {"/etc/corosync", 0755}};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(folders); i++)
		rc = path_make_dirs(folders[i].path, folders[i].mode, err);
	return rc;
}

int host_setup_write(const struct host_setup *s, const struct host_identity *id, struct err *err)
{
	const struct {
		const char *path;
		const struct buf *content;
		mode_t mode;
	} files[] = {
		{PATH_PKI_CA, &id->ca, 0644},
		{PATH_PKI_CA_KEY, &id->ca_key, 0600},
		{PATH_PKI_CERT, &id->cert, 0644},
		{PATH_PKI_KEY, &id->key, 0600},
		{PATH_COROSYNC_AUTHKEY, &id->authkey, 0400},
		{PATH_COROSYNC_CONF, &id->corosync_conf, 0644},
	};
	struct hostconf conf = {.name = s->name, .address = s->address, .bridge = s->bridge, .uplink = s->uplink, .accel = s->accel, .watchdog = s->watchdog,
				.memory_reserve_mib = MEMORY_RESERVE_MIB};
	int rc = make_folders(err);

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(files); i++)
		if (files[i].content->len > 0)
			rc = atomic_file_write(files[i].path, files[i].content->data, files[i].content->len, files[i].mode, err);
	return rc < 0 ? rc : hostconf_write(PATH_HOST_CONFIG, &conf, err);
}
