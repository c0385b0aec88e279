#include "lib/corosync_conf.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* corosync waits half a token for knet's pings, whose thread wakes only each 200 ms: with a token up to this, idle
 * links would fall every few seconds unless their time-out is set apart. */
#define TOKEN_NEEDS_PING_SETTINGS_MS 400

static bool is_word(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-";

	return text != NULL && *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_valid(const struct corosync_conf *c, uint32_t token_ms)
{
	if (!is_word(c->cluster_name) || c->n_nodes == 0 || token_ms < COROSYNC_CONF_TOKEN_MIN_MS ||
	    token_ms > COROSYNC_CONF_TOKEN_MAX_MS)
		return false;
	for (size_t i = 0; i < c->n_nodes; i++)
		if (!is_word(c->nodes[i].name) || !is_word(c->nodes[i].address) || c->nodes[i].node_id == 0)
			return false;
	return true;
}

int corosync_conf_render(const struct corosync_conf *c, struct buf *out)
{
	uint32_t token_ms = c->token_ms ? c->token_ms : COROSYNC_CONF_TOKEN_DEFAULT_MS;

	if (!is_valid(c, token_ms))
		return -EINVAL;
	buf_printf(out, "# Written by gantry from the cluster's list of hosts; changes are lost when that changes.\n");
	/* token_coefficient 0: the token is what it says, however many hosts there are. */
	buf_printf(out,
		   "totem {\n\tversion: 2\n\tcluster_name: %s\n\ttransport: knet\n\tcrypto_cipher: aes256\n"
		   "\tcrypto_hash: sha256\n\ttoken: %u\n\ttoken_coefficient: 0\n",
		   c->cluster_name, token_ms);
	if (token_ms <= TOKEN_NEEDS_PING_SETTINGS_MS)
		buf_printf(out, "\tinterface {\n\t\tlinknumber: 0\n\t\tknet_ping_interval: 250\n"
				"\t\tknet_ping_timeout: 1000\n\t}\n");
	buf_printf(out, "}\n\nnodelist {\n");
	for (size_t i = 0; i < c->n_nodes; i++)
		buf_printf(out, "\tnode {\n\t\tring0_addr: %s\n\t\tname: %s\n\t\tnodeid: %u\n\t}\n", c->nodes[i].address,
			   c->nodes[i].name, c->nodes[i].node_id);
	buf_printf(out, "}\n\nquorum {\n\tprovider: corosync_votequorum\n}\n\n"
			"system {\n\tsched_rr: yes\n\tmove_to_root_cgroup: no\n}\n\n"
			"logging {\n\tto_stderr: yes\n\tto_logfile: no\n\tto_syslog: no\n\ttimestamp: hires\n}\n");
	return 0;
}
