#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/model_internal.h"

/* ---- who votes ------------------------------------------------------------ */

static bool voters_with(const uint32_t *old, size_t n_old, uint32_t node, uint32_t **ret, size_t *ret_n)
{
	size_t n = 0, i = 0;
	uint32_t *voters;

	for (size_t k = 0; k < n_old; k++)
		if (old[k] == node)
			return false;
	voters = mem_alloc((n_old + 1) * sizeof(*voters));
	while (i < n_old && old[i] < node)
		voters[n++] = old[i++];
	voters[n++] = node;
	while (i < n_old)
		voters[n++] = old[i++];
	*ret = voters;
	*ret_n = n;
	return true;
}

static bool voters_without(const uint32_t *old, size_t n_old, uint32_t node, uint32_t **ret, size_t *ret_n)
{
	uint32_t *voters;
	size_t n = 0;
	bool found = false;

	for (size_t i = 0; i < n_old; i++)
		found |= old[i] == node;
	/* Without its last voter a cluster could never agree on anything again. */
	if (!found || n_old == 1)
		return false;
	voters = mem_alloc(n_old * sizeof(*voters));
	for (size_t i = 0; i < n_old; i++)
		if (old[i] != node)
			voters[n++] = old[i];
	*ret = voters;
	*ret_n = n;
	return true;
}

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	*ret = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		uint8_t byte = *(*p)++;

		*ret |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

/* Each host asks this of each entry of the log: only the few bodies that can change the voters are unpacked. Protobuf's wire format:
 * a tag (field << 3 | type), then a varint, 8 bytes, a length and as many bytes, or 4 bytes. What it cannot read it leaves to the unpacker. */
static bool may_change_voters(const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;
	uint64_t tag, value;

	while (p < end) {
		if (!varint(&p, end, &tag))
			return true;
		switch (tag >> 3) {
		case GANTRY__COMMAND__BODY_EPOCH_START:
		case GANTRY__COMMAND__BODY_CLUSTER_INIT:
		case GANTRY__COMMAND__BODY_HOST_ADD:
		case GANTRY__COMMAND__BODY_HOST_REMOVE:
			return true;
		default:
			break;
		}
		if ((tag & 7) != 0 && (tag & 7) != 2)
			return true;
		if (!varint(&p, end, &value))
			return true;
		if ((tag & 7) == 2) {
			if (value > (uint64_t)(end - p))
				return true;
			p += value;
		}
	}
	return false;
}

bool model_voters_of(const uint8_t *command, size_t len, const uint32_t *old, size_t n_old, uint32_t **ret, size_t *ret_n)
{
	Gantry__Command *c = may_change_voters(command, len) ? gantry__command__unpack(NULL, len, command) : NULL;
	bool changed = false;

	if (!c)
		return false;
	if (c->body_case == GANTRY__COMMAND__BODY_CLUSTER_INIT) {
		/* Only the very first one: a second must not throw the voters out. */
		if (!n_old && c->cluster_init->host && c->cluster_init->host->node_id)
			changed = voters_with(old, n_old, c->cluster_init->host->node_id, ret, ret_n);
	} else if (c->body_case == GANTRY__COMMAND__BODY_HOST_ADD) {
		if (n_old && c->host_add->host && c->host_add->host->node_id)
			changed = voters_with(old, n_old, c->host_add->host->node_id, ret, ret_n);
	} else if (c->body_case == GANTRY__COMMAND__BODY_HOST_REMOVE) {
		changed = voters_without(old, n_old, c->host_remove->node_id, ret, ret_n);
	} else if (c->body_case == GANTRY__COMMAND__BODY_EPOCH_START && c->epoch_start->n_voters) {
		*ret = mem_dup(c->epoch_start->voters, c->epoch_start->n_voters * sizeof(**ret));
		*ret_n = c->epoch_start->n_voters;
		changed = true;
	}
	gantry__command__free_unpacked(c, NULL);
	return changed;
}

/* ---- cluster and epochs ---------------------------------------------------- */

static void host_insert(struct model_apply *a, const Gantry__Host *given)
{
	Gantry__Host *h = pb_clone(given);
	size_t i = 0;

	/* What only the cluster decides does not come from outside. */
	h->state = HOST(JOINING);
	h->state_since_ms = a->cmd->time_ms;
	h->incarnation = 0;
	h->agent_connected = h->fence_asked = false;
	h->unguarded = model__disarmed(a->m);
	pb_set_string(&h->proof, NULL);
	pb_set_string(&h->state_reason, "it has not been seen yet");
	while (i < a->s->n_hosts && a->s->hosts[i]->node_id < h->node_id)
		i++;
	PB_INSERT(a->s, hosts, i, h);
	model__use_forget(a->m);
}

static int host_check_new(struct model_apply *a, const Gantry__Host *h)
{
	const Gantry__Host *other;

	if (!h || !h->node_id || !model__name_ok(h->name) || model__empty(h->address))
		return model__refuse(a, STATUS(BAD_DATA), "a host needs a node id, a name and an address");
	if (a->s->n_hosts >= LIMIT_HOSTS)
		return model__refuse(a, STATUS(CONSTRAINT), "host '%s': the cluster has %d hosts already, the most it can have", h->name, LIMIT_HOSTS);
	if (h->n_fence > LIMIT_FENCE_DEVICES)
		return model__refuse(a, STATUS(BAD_DATA), "host '%s': more than %d fence devices", h->name, LIMIT_FENCE_DEVICES);
	other = model_host_by_node(a->m, h->node_id);
	if (other)
		return model__refuse(a, STATUS(EXISTS), "host '%s': node id %u is that of '%s'", h->name, h->node_id, other->name);
	if (model_host(a->m, h->name))
		return model__refuse(a, STATUS(EXISTS), "host '%s' is a member already: remove it first, or take another name", h->name);
	for (size_t i = 0; i < a->s->n_hosts; i++)
		if (model__is(a->s->hosts[i]->address, h->address))
			return model__refuse(a, STATUS(EXISTS), "host '%s': address %s is that of '%s'", h->name, h->address, a->s->hosts[i]->name);
	return 0;
}

int model__cluster_init(struct model_apply *a, const Gantry__CmdClusterInit *c)
{
	int rc;

	if (a->s->n_hosts)
		return model__refuse(a, STATUS(EXISTS), "this host is in cluster '%s' already", a->s->cluster_name);
	if (!model__name_ok(c->name) || model__empty(c->uuid))
		return model__refuse(a, STATUS(BAD_DATA), "a cluster needs a name (letters, digits, . _ - + : @) and a uuid");
	rc = host_check_new(a, c->host);
	if (rc)
		return rc;
	pb_set_string(&a->s->cluster_name, c->name);
	pb_set_string(&a->s->cluster_uuid, c->uuid);
	host_insert(a, c->host);
	pb_set_string(&a->result->uuid, c->uuid);
	model__event(a, INFO, "cluster", c->name, "cluster-created", "cluster %s was made on %s", c->name, c->host->name);
	return 0;
}

/* ---- members --------------------------------------------------------------- */

int model__host_admit(struct model_apply *a, const Gantry__CmdHostAdmit *c)
{
	int rc = host_check_new(a, c->host);

	if (rc)
		return rc;
	host_insert(a, c->host);
	model__event(a, INFO, "host", c->host->name, "host-admitted", "%s (%s) may join", c->host->name, c->host->address);
	return 0;
}

int model__host_add(struct model_apply *a, const Gantry__CmdHostAdd *c)
{
	const Gantry__Host *h = c->host ? model_host_by_node(a->m, c->host->node_id) : NULL;
	int rc;

	if (h && !model__is(h->name, c->host->name))
		return model__refuse(a, STATUS(EXISTS), "host '%s': node id %u is that of '%s'", c->host->name, h->node_id, h->name);
	if (!h) {
		rc = host_check_new(a, c->host);
		if (rc)
			return rc;
		host_insert(a, c->host);
	}
	if (model__is_voter(a->s, c->host->node_id))
		return 0;
	model__event(a, INFO, "host", c->host->name, "host-added", "%s is a member; its disk counts for the quorum", c->host->name);
	return 0;
}

/* Nothing may hang on a host that leaves for good. */
static int host_check_free(struct model_apply *a, const Gantry__Host *h)
{
	for (size_t i = 0; i < a->s->n_domains; i++)
		if (model__is(a->s->domains[i]->host, h->name))
			return model__refuse(a, STATUS(CONSTRAINT), "host '%s' runs domain '%s': migrate or stop its domains first%s", h->name,
					     a->s->domains[i]->spec->name,
					     h->state == HOST(ONLINE) ? "" : "; if it is off for good, say so with 'clusterctl fence confirm'");
	for (size_t i = 0; i < a->s->n_jobs; i++) {
		const Gantry__Job *j = a->s->jobs[i];

		if (j->state == JOB(RUNNING) && (model__is(j->source, h->name) || model__is(j->destination, h->name)))
			return model__refuse(a, STATUS(RETRY), "host '%s' has a part in task %llu: wait for it, or cancel it", h->name,
					     (unsigned long long)j->id);
	}
	for (size_t i = 0; i < a->s->n_volumes; i++) {
		const Gantry__Volume *v = a->s->volumes[i];
		const Gantry__Pool *p = model_pool(a->m, v->pool);

		if (p && !p->shared && model__is(v->host, h->name))
			return model__refuse(a, STATUS(CONSTRAINT), "host '%s' alone has volume '%s/%s': delete it first", h->name, v->pool, v->name);
	}
	return 0;
}

int model__host_remove(struct model_apply *a, const Gantry__CmdHostRemove *c)
{
	Gantry__Host *h = model_host(a->m, c->name);
	int rc;

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", c->name);
	if (h->node_id != c->node_id)
		return model__refuse(a, STATUS(BAD_DATA), "host '%s' has node id %u, not %u", c->name, h->node_id, c->node_id);
	if (a->s->n_hosts == 1 || (a->s->n_voters == 1 && model__is_voter(a->s, h->node_id)))
		return model__refuse(a, STATUS(CONSTRAINT), "host '%s' is the last one of the cluster", c->name);
	rc = host_check_free(a, h);
	if (rc)
		return rc;
	model__event(a, INFO, "host", h->name, "host-removed", "%s is not a member any more", h->name);
	for (size_t i = 0; i < a->s->n_hosts; i++) {
		if (a->s->hosts[i] == h) {
			PB_REMOVE(a->s, hosts, i);
			model__use_forget(a->m);
			break;
		}
	}
	return 0;
}

/* ---- states ---------------------------------------------------------------- */

/* From where a host may get where. DEAD only out of FENCING: a proof was sought and found. */
static bool host_may_move(Gantry__HostState from, Gantry__HostState to)
{
	switch (to) {
	case HOST(ONLINE):
		return from != HOST(ONLINE);
	case HOST(LOST):
		return from == HOST(ONLINE) || from == HOST(UNKNOWN);
	case HOST(FENCING):
		return from == HOST(LOST);
	case HOST(DEAD):
		return from == HOST(FENCING);
	default:
		return false;
	}
}

static void host_set_state(struct model_apply *a, Gantry__Host *h, Gantry__HostState to, const char *reason)
{
	h->state = to;
	h->state_since_ms = a->cmd->time_ms;
	pb_set_string(&h->state_reason, reason);
}

static void host_volumes_died(struct model_apply *a, const char *host)
{
	for (size_t i = a->s->n_volumes; i-- > 0;) {
		Gantry__Volume *v = a->s->volumes[i];
		Gantry__Job *job = model_job(a->m, v->job_id);
		char reason[256];

		if (v->state != VOL(CREATING) || !model__is(v->host, host))
			continue;
		snprintf(reason, sizeof(reason), "%s died while it made the volume", host);
		if (job && job->state == JOB(RUNNING))
			model__job_end(a, job, JOB(FAILED), reason);
		model__event(a, ERROR, "pool", v->pool, "volume-failed", "%s/%s: %s", v->pool, v->name, reason);
		PB_REMOVE(a->s, volumes, i);
	}
}

static void lost_pools_set(Gantry__Host *h, char *const *pools, size_t n)
{
	while (h->n_lost_pools)
		free(h->lost_pools[--h->n_lost_pools]);
	free(h->lost_pools);
	h->lost_pools = NULL;
	for (size_t i = 0; i < n; i++)
		pb_string_append(&h->lost_pools, &h->n_lost_pools, pools[i]);
}

/* The proof stands in the log: all that the host had in hand is free now, in the same step. */
static void host_died(struct model_apply *a, Gantry__Host *h, const char *proof)
{
	char why[ERR_TEXT_MAX];

	host_set_state(a, h, HOST(DEAD), proof);
	pb_set_string(&h->proof, proof);
	h->agent_connected = h->fence_asked = false;
	lost_pools_set(h, NULL, 0);
	model__event(a, WARNING, "host", h->name, "host-dead", "%s is proven dead: %s", h->name, proof);
	snprintf(why, sizeof(why), "%s died (%s)", h->name, proof);
	for (size_t i = 0; i < a->s->n_jobs; i++)
		if (a->s->jobs[i]->state == JOB(RUNNING) && a->s->jobs[i]->kind == KIND(MIGRATE))
			model__job_host_died(a, a->s->jobs[i], h->name);
	for (size_t i = MUTANT(failover_forgets_domain); i < a->s->n_domains; i++)
		if (model__is(a->s->domains[i]->host, h->name))
			model__domain_host_died(a, a->s->domains[i], why);
	host_volumes_died(a, h->name);
}

/* Voters that the leader of an epoch left out: it could do so only with the proof that they are dead (clog_sync.c). The proof
 * frees what they had in hand in the same step, whoever leads from here on. */
static void left_out(struct model_apply *a, const Gantry__CmdEpochStart *c)
{
	for (size_t i = 0; i < a->s->n_hosts; i++) {
		Gantry__Host *h = a->s->hosts[i];
		bool stays = false;

		for (size_t k = 0; k < c->n_voters; k++)
			stays = stays || c->voters[k] == h->node_id;
		if (!stays && model__is_voter(a->s, h->node_id) && h->state != HOST(DEAD))
			host_died(a, h, "proven off before half of the voters went on alone");
	}
}

int model__epoch_start(struct model_apply *a, const Gantry__CmdEpochStart *c)
{
	const Gantry__Host *h = model_host_by_node(a->m, c->leader);
	bool changed = a->s->leader != c->leader;

	a->s->leader = c->leader;
	if (changed && h)
		model__event(a, INFO, "host", h->name, "leader-changed", "%s leads from epoch %llu on", h->name, (unsigned long long)a->epoch);
	if (!c->n_voters)
		return 0;
	if (h)
		model__event(a, WARNING, "host", h->name, "quorum-alone", "%zu of %zu voters go on alone: the others are proven dead", c->n_voters,
			     a->s->n_voters);
	left_out(a, c);
	return 0;
}

static void host_online(struct model_apply *a, Gantry__Host *h, const char *reason)
{
	Gantry__HostState from = h->state;

	h->incarnation++;
	h->online_index = a->index;
	h->fence_asked = false;
	h->leftovers = 0;
	host_set_state(a, h, HOST(ONLINE), reason);
	model__event(a, INFO, "host", h->name, "host-online", "%s is online%s", h->name, from == HOST(JOINING) ? "" : " again");
}

int model__host_state(struct model_apply *a, const Gantry__CmdHostState *c)
{
	Gantry__Host *h = model_host(a->m, c->name);
	uint64_t expected;

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'", c->name);
	if (!host_may_move(h->state, c->state))
		return model__refuse(a, STATUS(RETRY), "host '%s' is %s and cannot become %s from there", h->name, model__host_word(h->state),
				     model__host_word(c->state));
	/* A decision about an earlier life of the host must not hit this one. */
	expected = c->state == HOST(ONLINE) ? h->incarnation + 1 : h->incarnation;
	if (c->incarnation != expected)
		return model__refuse(a, STATUS(RETRY), "host '%s': decided for incarnation %llu, which is not this one (%llu)", h->name,
				     (unsigned long long)c->incarnation, (unsigned long long)expected);
	if (c->state == HOST(DEAD) && model__empty(c->proof))
		return model__refuse(a, STATUS(BAD_DATA), "host '%s': nobody is dead without a proof", h->name);
	switch (c->state) {
	case HOST(ONLINE):
		host_online(a, h, c->reason);
		break;
	case HOST(LOST):
		host_set_state(a, h, HOST(LOST), c->reason);
		model__event(a, WARNING, "host", h->name, "host-lost", "%s is lost: %s", h->name, c->reason);
		break;
	case HOST(FENCING):
		host_set_state(a, h, HOST(FENCING), c->reason);
		model__event(a, WARNING, "host", h->name, "host-fencing", "%s is being fenced: %s", h->name, c->reason);
		break;
	default:
		host_died(a, h, c->proof);
		break;
	}
	return 0;
}

int model__fence_confirm(struct model_apply *a, const Gantry__CmdFenceConfirm *c)
{
	Gantry__Host *h = model_host(a->m, c->host);

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", c->host);
	/* Without a quorum the same word let half of the voters go on alone, and counts already. */
	if (h->state == HOST(DEAD))
		return 0;
	if (h->state != HOST(LOST) && h->state != HOST(FENCING))
		return model__refuse(a, STATUS(CONSTRAINT), "host '%s' is %s: only a lost host can be confirmed to be off", h->name,
				     model__host_word(h->state));
	host_died(a, h, "confirmed by hand: it is off");
	return 0;
}

static bool lists(char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (model__is(names[i], name))
			return true;
	return false;
}

static void info_of_pools(struct model_apply *a, Gantry__Host *h, const Gantry__Host *said)
{
	for (size_t i = 0; i < said->n_lost_pools; i++)
		if (!lists(h->lost_pools, h->n_lost_pools, said->lost_pools[i]))
			model__event(a, WARNING, "host", h->name, "pool-lost", "%s cannot reach pool %s ('clusterctl pool list' says why)", h->name,
				     said->lost_pools[i]);
	for (size_t i = 0; i < h->n_lost_pools; i++)
		if (!lists(said->lost_pools, said->n_lost_pools, h->lost_pools[i]))
			model__event(a, INFO, "host", h->name, "pool-back", "%s reaches pool %s again", h->name, h->lost_pools[i]);
	lost_pools_set(h, said->lost_pools, said->n_lost_pools);
}

int model__host_info(struct model_apply *a, const Gantry__CmdHostInfo *c)
{
	Gantry__Host *h = c->host ? model_host(a->m, c->host->name) : NULL;

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'", c->host ? c->host->name : "");
	if (h->agent_connected != c->host->agent_connected)
		model__event(a, c->host->agent_connected ? INFO : WARNING, "host", h->name,
			     c->host->agent_connected ? "agent-connected" : "agent-disconnected", "the agent of %s is %s", h->name,
			     c->host->agent_connected ? "connected" : "not connected");
	h->agent_connected = c->host->agent_connected;
	/* A clusterd whose agent is away knows nothing about the host: the last figures stand. */
	if (!c->host->memory_bytes)
		return 0;
	h->memory_bytes = c->host->memory_bytes;
	h->cpus = c->host->cpus;
	pb_set_string(&h->qemu_version, c->host->qemu_version);
	pb_set_string(&h->accel, c->host->accel);
	pb_set_string(&h->agent_version, c->host->agent_version);
	pb_set_string(&h->default_bridge, c->host->default_bridge);
	pb_set_string(&h->watchdog, c->host->watchdog);
	info_of_pools(a, h, c->host);
	if (c->host->leftovers && c->host->leftovers != h->leftovers)
		model__event(a, WARNING, "host", h->name, "host-leftovers", "%s still runs %u QEMU%s of an earlier time: it gets nothing until they have ended",
			     h->name, c->host->leftovers, c->host->leftovers == 1 ? "" : "s");
	h->leftovers = c->host->leftovers;
	if (!c->host->unguarded && !model__disarmed(a->m))
		h->unguarded = false;
	return 0;
}

int model__fence_set(struct model_apply *a, const Gantry__CmdFenceSet *c)
{
	Gantry__Host *h = model_host(a->m, c->host);

	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", c->host);
	if (c->n_devices > LIMIT_FENCE_DEVICES)
		return model__refuse(a, STATUS(BAD_DATA), "host '%s': at most %d fence devices", h->name, LIMIT_FENCE_DEVICES);
	for (size_t i = 0; i < c->n_devices; i++) {
		const char *agent = c->devices[i]->agent;

		if (!model__is(agent, MODEL_WATCHDOG_DEVICE) && (strncmp(agent, "fence_", 6) != 0 || !model__name_ok(agent)))
			return model__refuse(a, STATUS(BAD_DATA), "host '%s': '%s' is not the name of a fence agent (fence_... or watchdog)", h->name, agent);
		if (model__is(agent, MODEL_WATCHDOG_DEVICE) && model__empty(h->watchdog))
			return model__refuse(a, STATUS(CONSTRAINT), "host '%s': its agent has no watchdog: name one in its host.yaml ('watchdog: /dev/watchdog') and "
					     "restart gantry-agent there", h->name);
	}
	while (h->n_fence)
		PB_REMOVE(h, fence, h->n_fence - 1);
	/* By level, those of one level in the order given (all of them must agree). */
	for (size_t i = 0; i < c->n_devices; i++) {
		size_t at = h->n_fence;

		while (at && h->fence[at - 1]->level > c->devices[i]->level)
			at--;
		PB_INSERT(h, fence, at, (Gantry__FenceDevice *)pb_clone(c->devices[i]));
	}
	/* Parameters may be secret: events name the agents only. */
	model__event(a, INFO, "host", h->name, "fence-set", "%s has %zu fence device%s%s%s", h->name, h->n_fence, h->n_fence == 1 ? "" : "s",
		     h->n_fence ? ", first " : "", h->n_fence ? h->fence[0]->agent : "");
	return 0;
}
