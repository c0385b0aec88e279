#include "network/bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

/* FNV-1a */
static uint32_t name_hash(const char *s)
{
	uint32_t hash = 2166136261u;

	for (; *s; s++)
		hash = (hash ^ (uint8_t)*s) * 16777619u;
	return hash;
}

/* A conversation with the kernel: one socket for one call. */
static int route_socket(struct nl_sock **ret, struct err *err)
{
	struct nl_sock *sock = nl_socket_alloc();
	int rc = sock ? nl_connect(sock, NETLINK_ROUTE) : -NLE_NOMEM;

	if (rc < 0) {
		nl_socket_free(sock);
		return err_set(err, EIO, "rtnetlink: %s", nl_geterror(rc));
	}
	*ret = sock;
	return 0;
}

static int errno_of(int nl_rc)
{
	switch (-nl_rc) {
	case NLE_PERM:
		return EPERM;
	case NLE_EXIST:
		return EEXIST;
	case NLE_NODEV:
	case NLE_OBJ_NOTFOUND:
		return ENODEV;
	case NLE_BUSY:
		return EBUSY;
	case NLE_OPNOTSUPP:
		return ENOTSUP;
	default:
		return EIO;
	}
}

static int failed(struct err *err, int nl_rc, const char *name, const char *what)
{
	const char *remedy = nl_rc == -NLE_PERM ? "; this needs root (CAP_NET_ADMIN)" :
			     nl_rc == -NLE_OPNOTSUPP ? "; does the kernel have the module 'bridge'?" : "";

	return err_set(err, errno_of(nl_rc), "network interface '%s': %s: %s%s", name, what, nl_geterror(nl_rc), remedy);
}

static int name_check(const char *name, struct err *err)
{
	if (!*name || strlen(name) >= IFNAMSIZ || strpbrk(name, "/ \t\n"))
		return err_set(err, EINVAL, "'%s' is not the name of a network interface (1 to %d characters, no blank, no '/')", name,
			       IFNAMSIZ - 1);
	return 0;
}

static bool is_type(struct rtnl_link *link, const char *wanted)
{
	const char *type = rtnl_link_get_type(link);

	return type && strcmp(type, wanted) == 0;
}

static bool is_bridge(struct rtnl_link *link)
{
	return is_type(link, "bridge");
}

/* The kernel's word for taps too. */
static bool is_tap(struct rtnl_link *link)
{
	return is_type(link, "tun");
}

/* Changes `link` by what is set in `change`. */
static int change_link(struct nl_sock *sock, struct rtnl_link *link, struct rtnl_link *change, const char *what, struct err *err)
{
	int rc = rtnl_link_change(sock, link, change, 0);

	return rc < 0 ? failed(err, rc, rtnl_link_get_name(link), what) : 0;
}

static int link_up(struct nl_sock *sock, struct rtnl_link *link, uint32_t mtu, struct err *err)
{
	struct rtnl_link *change = rtnl_link_alloc();
	int rc;

	if (mtu)
		rtnl_link_set_mtu(change, mtu);
	rtnl_link_set_flags(change, IFF_UP);
	rc = change_link(sock, link, change, "set up", err);
	rtnl_link_put(change);
	return rc;
}

static int link_join(struct nl_sock *sock, struct rtnl_link *link, struct rtnl_link *bridge, struct err *err)
{
	int rc;

	if (rtnl_link_get_master(link) == rtnl_link_get_ifindex(bridge))
		return 0;
	if (rtnl_link_get_master(link))
		return err_set(err, EBUSY, "network interface '%s' is already part of another bridge", rtnl_link_get_name(link));
	rc = rtnl_link_enslave(sock, bridge, link);
	return rc < 0 ? failed(err, rc, rtnl_link_get_name(link), "put into the bridge") : 0;
}

static int bridge_make(struct nl_sock *sock, const char *name, struct err *err)
{
	struct rtnl_link *bridge = rtnl_link_bridge_alloc();
	int rc;

	rtnl_link_set_name(bridge, name);
	/* The kernel's own bridge default is 15 s of silence for each new port: with no STP there is nothing to wait for. */
	rc = rtnl_link_add(sock, bridge, NLM_F_CREATE | NLM_F_EXCL);
	rtnl_link_put(bridge);
	return rc < 0 && rc != -NLE_EXIST ? failed(err, rc, name, "make the bridge") : 0;
}

static int uplink_join(struct nl_sock *sock, struct rtnl_link *bridge, const char *uplink, struct err *err)
{
	struct rtnl_link *link = NULL;
	int rc = rtnl_link_get_kernel(sock, 0, uplink, &link);

	if (rc < 0)
		return failed(err, rc, uplink, "the uplink named in host.yaml");
	rc = link_join(sock, link, bridge, err);
	if (!rc)
		rc = link_up(sock, link, 0, err);
	rtnl_link_put(link);
	return rc;
}

int bridge_ensure(const char *name, const char *uplink, struct err *err)
{
	struct rtnl_link *bridge = NULL;
	struct nl_sock *sock = NULL;
	int rc = name_check(name, err);

	if (!rc)
		rc = route_socket(&sock, err);
	if (rc)
		return rc;
	if (rtnl_link_get_kernel(sock, 0, name, &bridge) < 0) {
		rc = bridge_make(sock, name, err);
		if (!rc) {
			rc = rtnl_link_get_kernel(sock, 0, name, &bridge);
			rc = rc < 0 ? failed(err, rc, name, "find the bridge that was just made") : 0;
		}
	}
	if (!rc && !is_bridge(bridge))
		rc = err_set(err, EEXIST, "network interface '%s' exists and is no bridge: name another one in host.yaml", name);
	if (!rc)
		rc = link_up(sock, bridge, 0, err);
	if (!rc && uplink && *uplink)
		rc = uplink_join(sock, bridge, uplink, err);
	if (bridge)
		rtnl_link_put(bridge);
	nl_socket_free(sock);
	return rc;
}

bool bridge_exists(const char *name)
{
	struct rtnl_link *link = NULL;
	struct nl_sock *sock = NULL;
	bool found;

	if (route_socket(&sock, NULL))
		return false;
	found = rtnl_link_get_kernel(sock, 0, name, &link) == 0 && is_bridge(link);
	if (link)
		rtnl_link_put(link);
	nl_socket_free(sock);
	return found;
}

/* Makes (or finds) the persistent tap. -EBUSY: a process has it open. */
static int tap_make(const char *ifname, struct err *err)
{
	_cleanup_close_ int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	/* As QEMU opens it: other flags would be refused for a tap that exists. */
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

	if (fd < 0)
		return err_set(err, errno, "/dev/net/tun: %s; does the kernel have the module 'tun'?", strerror(errno));
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		if (errno == EBUSY)
			return err_set(err, EBUSY, "tap '%s' is in use by another process", ifname);
		return err_set(err, errno, "tap '%s': %s", ifname, strerror(errno));
	}
	if (ioctl(fd, TUNSETPERSIST, 1) < 0)
		return err_set(err, errno, "tap '%s': cannot be kept: %s", ifname, strerror(errno));
	return 0;
}

/* A bridge without an address of its own takes the lowest of its ports: with a tap's random one the host would change its
 * address on the network, and drop connections, whenever a domain starts. fe:... is above all others. */
static int tap_set_address(struct nl_sock *sock, struct rtnl_link *tap, struct err *err)
{
	const uint32_t hash = name_hash(rtnl_link_get_name(tap));
	uint8_t bytes[6] = {0xfe, 0x47, hash >> 24 & 0xff, hash >> 16 & 0xff, hash >> 8 & 0xff, hash & 0xff};
	struct nl_addr *address = nl_addr_build(AF_LLC, bytes, sizeof(bytes));
	struct rtnl_link *change = rtnl_link_alloc();
	int rc;

	rtnl_link_set_addr(change, address);
	rc = change_link(sock, tap, change, "set its address", err);
	rtnl_link_put(change);
	nl_addr_put(address);
	return rc;
}

static int tap_join(const char *ifname, const char *bridge_name, uint32_t mtu, struct err *err)
{
	struct rtnl_link *bridge = NULL, *tap = NULL;
	struct nl_sock *sock = NULL;
	int rc = route_socket(&sock, err), nl;

	if (rc)
		return rc;
	nl = rtnl_link_get_kernel(sock, 0, bridge_name, &bridge);
	if (nl < 0)
		rc = err_set(err, errno_of(nl), "no bridge '%s' on this host", bridge_name);
	else if ((nl = rtnl_link_get_kernel(sock, 0, ifname, &tap)) < 0)
		rc = failed(err, nl, ifname, "find the tap");
	if (!rc && rtnl_link_get_master(tap) && rtnl_link_get_master(tap) != rtnl_link_get_ifindex(bridge)) {
		/* Left over from a life on another bridge; nobody has it open. */
		rtnl_link_release(sock, tap);
		rtnl_link_set_master(tap, 0);
	}
	if (!rc)
		rc = tap_set_address(sock, tap, err);
	if (!rc)
		rc = link_join(sock, tap, bridge, err);
	if (!rc)
		rc = link_up(sock, tap, mtu, err);
	if (tap)
		rtnl_link_put(tap);
	if (bridge)
		rtnl_link_put(bridge);
	nl_socket_free(sock);
	return rc;
}

int tap_create(const char *ifname, const char *bridge, uint32_t mtu, struct err *err)
{
	int rc = name_check(ifname, err);

	if (!rc)
		rc = tap_make(ifname, err);
	if (rc)
		return rc;
	rc = tap_join(ifname, bridge, mtu, err);
	if (rc)
		tap_delete(ifname, NULL);
	return rc;
}

int tap_delete(const char *ifname, struct err *err)
{
	struct rtnl_link *tap = NULL;
	struct nl_sock *sock = NULL;
	int rc = route_socket(&sock, err), nl;

	if (rc)
		return rc;
	nl = rtnl_link_get_kernel(sock, 0, ifname, &tap);
	/* The name may be a user's (vifname): never the host's own network card. */
	if (nl == 0 && !is_tap(tap))
		rc = err_set(err, EINVAL, "network interface '%s' is no tap: it is not deleted", ifname);
	else if (nl == 0)
		nl = rtnl_link_delete(sock, tap);
	if (nl < 0 && nl != -NLE_OBJ_NOTFOUND && nl != -NLE_NODEV)
		rc = failed(err, nl, ifname, "delete the tap");
	if (tap)
		rtnl_link_put(tap);
	nl_socket_free(sock);
	return rc;
}

int tap_list(const char *prefix, char ***ret, size_t *ret_n, struct err *err)
{
	struct nl_cache *links = NULL;
	struct nl_sock *sock = NULL;
	char **names = NULL;
	size_t n = 0;
	int rc = route_socket(&sock, err), nl;

	if (rc)
		return rc;
	nl = rtnl_link_alloc_cache(sock, AF_UNSPEC, &links);
	if (nl < 0) {
		nl_socket_free(sock);
		return err_set(err, errno_of(nl), "cannot list the network interfaces: %s", nl_geterror(nl));
	}
	for (struct nl_object *o = nl_cache_get_first(links); o; o = nl_cache_get_next(o)) {
		const char *name = rtnl_link_get_name((struct rtnl_link *)o);

		if (!name || strncmp(name, prefix, strlen(prefix)) != 0 || !is_tap((struct rtnl_link *)o))
			continue;
		names = mem_realloc(names, (n + 1) * sizeof(*names));
		names[n++] = str_dup(name);
	}
	nl_cache_free(links);
	nl_socket_free(sock);
	*ret = names;
	*ret_n = n;
	return 0;
}

char *tap_name(const char *domain_uuid, unsigned i)
{
	return str_printf("vif%08x.%u", name_hash(domain_uuid), i % 100);
}
