#include <stdlib.h>

#include "clusterd/core/model_internal.h"

/* ---- pools ------------------------------------------------------------------ */

int model__pool_add(struct model_apply *a, const Gantry__CmdPoolAdd *c)
{
	Gantry__Pool *p;
	size_t at = 0;
	bool nfs;

	if (!c->pool || !model__name_ok(c->pool->name))
		return model__refuse(a, STATUS(BAD_DATA), "a pool needs a name of letters, digits and . _ - + : @, at most %d characters", LIMIT_NAME_CHARS);
	nfs = c->pool->type == GANTRY__POOL_TYPE__POOL_TYPE_NFS;
	if (!nfs && c->pool->type != GANTRY__POOL_TYPE__POOL_TYPE_DIR)
		return model__refuse(a, STATUS(BAD_DATA), "pool '%s': an unknown type (%d)", c->pool->name, c->pool->type);
	if (nfs ? strncmp(c->pool->target, "nfs://", 6) != 0 : *c->pool->target != '/')
		return model__refuse(a, STATUS(BAD_DATA), "pool '%s': '%s' is not %s", c->pool->name, c->pool->target,
				     nfs ? "an address like nfs://SERVER/EXPORT" : "an absolute path");
	if (model_pool(a->m, c->pool->name))
		return model__refuse(a, STATUS(EXISTS), "pool '%s' exists already", c->pool->name);
	if (a->s->n_pools >= LIMIT_POOLS)
		return model__refuse(a, STATUS(CONSTRAINT), "pool '%s': there are %d pools already, the most there can be", c->pool->name, LIMIT_POOLS);
	p = pb_clone(c->pool);
	p->shared = p->shared || nfs;
	while (at < a->s->n_pools && strcmp(a->s->pools[at]->name, p->name) < 0)
		at++;
	PB_INSERT(a->s, pools, at, p);
	model__event(a, INFO, "pool", p->name, "pool-added", "pool %s is %s%s", p->name, p->target, p->shared ? ", shared by all hosts" : "");
	return 0;
}

int model__pool_remove(struct model_apply *a, const Gantry__CmdPoolRemove *c)
{
	const Gantry__Pool *p = model_pool(a->m, c->name);

	if (!p)
		return model__refuse(a, STATUS(NO_SUCH), "no pool '%s'; see 'clusterctl pool list'", c->name);
	for (size_t i = 0; i < a->s->n_volumes; i++)
		if (model__is(a->s->volumes[i]->pool, c->name))
			return model__refuse(a, STATUS(CONSTRAINT), "pool '%s' has the volume '%s': delete its volumes first", c->name, a->s->volumes[i]->name);
	model__event(a, INFO, "pool", c->name, "pool-removed", "pool %s is not used any more; what is in it stays", c->name);
	for (size_t i = 0; i < a->s->n_pools; i++) {
		if (a->s->pools[i] == p) {
			PB_REMOVE(a->s, pools, i);
			break;
		}
	}
	return 0;
}

/* ---- who uses a volume --------------------------------------------------------- */

static bool disk_is(const Gantry__Disk *disk, const char *pool, const char *name)
{
	return *disk->volume && model__is(disk->pool, pool) && model__is(disk->volume, name);
}

static bool disk_writes(const Gantry__Disk *disk)
{
	return !disk->readonly && !disk->cdrom;
}

static int volume_check_others(struct model_apply *a, const Gantry__DomainSpec *spec, const Gantry__Disk *disk)
{
	for (size_t i = 0; i < a->s->n_domains; i++) {
		const Gantry__DomainSpec *other = a->s->domains[i]->spec;

		if (model__is(other->uuid, spec->uuid))
			continue;
		for (size_t k = 0; k < other->n_disks; k++) {
			if (!disk_is(other->disks[k], disk->pool, disk->volume) || (!disk_writes(other->disks[k]) && !disk_writes(disk)))
				continue;
			return model__refuse(a, STATUS(CONSTRAINT), "domain '%s': volume '%s/%s' is used%s by domain '%s': one writer has a volume to itself",
					     spec->name, disk->pool, disk->volume, disk_writes(other->disks[k]) ? " for writing" : "", other->name);
		}
	}
	return 0;
}

static int volume_check(struct model_apply *a, const Gantry__DomainSpec *spec, size_t n)
{
	const Gantry__Disk *disk = spec->disks[n];
	const Gantry__Volume *v;

	if (!model_pool(a->m, disk->pool))
		return model__refuse(a, STATUS(NO_SUCH), "domain '%s', disk %s: no pool '%s'; see 'clusterctl pool list'", spec->name, disk->vdev, disk->pool);
	v = model_volume(a->m, disk->pool, disk->volume);
	if (!v)
		return model__refuse(a, STATUS(NO_SUCH), "domain '%s', disk %s: no volume '%s' in pool '%s'; make it with 'clusterctl volume create %s/%s SIZE'",
				     spec->name, disk->vdev, disk->volume, disk->pool, disk->pool, disk->volume);
	if (v->state != VOL(READY))
		return model__refuse(a, STATUS(RETRY), "domain '%s', disk %s: volume '%s/%s' is being %s", spec->name, disk->vdev, v->pool, v->name,
				     v->state == VOL(CREATING) ? "made: wait for it" : "deleted");
	for (size_t i = 0; i < n; i++)
		if (disk_is(spec->disks[i], disk->pool, disk->volume) && (disk_writes(disk) || disk_writes(spec->disks[i])))
			return model__refuse(a, STATUS(BAD_DATA), "domain '%s': volume '%s/%s' is two of its disks (%s, %s)", spec->name, v->pool, v->name,
					     spec->disks[i]->vdev, disk->vdev);
	return volume_check_others(a, spec, disk);
}

int model__volumes_check(struct model_apply *a, const Gantry__DomainSpec *spec)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < spec->n_disks; i++)
		if (*spec->disks[i]->volume || *spec->disks[i]->pool)
			rc = volume_check(a, spec, i);
	return rc;
}

const Gantry__Volume *model__volume_elsewhere(const struct model *m, const Gantry__DomainSpec *spec, const char *host)
{
	for (size_t i = 0; i < spec->n_disks; i++) {
		const Gantry__Disk *disk = spec->disks[i];
		const Gantry__Pool *p = *disk->volume ? model_pool(m, disk->pool) : NULL;
		const Gantry__Volume *v = p && !p->shared ? model_volume(m, disk->pool, disk->volume) : NULL;

		if (v && !(host && model__is(v->host, host)))
			return v;
	}
	return NULL;
}

/* ---- volumes ---------------------------------------------------------------------- */

static int volume_check_new(struct model_apply *a, const Gantry__Volume *v)
{
	const Gantry__Host *h;

	if (!v || !model__name_ok(v->name))
		return model__refuse(a, STATUS(BAD_DATA), "a volume needs a name of letters, digits and . _ - + : @, at most %d characters", LIMIT_NAME_CHARS);
	if (!model_pool(a->m, v->pool))
		return model__refuse(a, STATUS(NO_SUCH), "volume '%s': no pool '%s'; see 'clusterctl pool list'", v->name, v->pool);
	if (model_volume(a->m, v->pool, v->name))
		return model__refuse(a, STATUS(EXISTS), "volume '%s/%s' exists already", v->pool, v->name);
	if (!v->size_bytes)
		return model__refuse(a, STATUS(BAD_DATA), "volume '%s/%s': it needs a size", v->pool, v->name);
	if (a->s->n_volumes >= LIMIT_VOLUMES)
		return model__refuse(a, STATUS(CONSTRAINT), "volume '%s/%s': there are %d volumes already, the most there can be", v->pool, v->name, LIMIT_VOLUMES);
	h = model_host(a->m, v->host);
	if (!h)
		return model__refuse(a, STATUS(NO_SUCH), "volume '%s/%s': no host '%s' to make it", v->pool, v->name, v->host);
	if (h->state != HOST(ONLINE) || !h->agent_connected)
		return model__refuse(a, STATUS(RETRY), "volume '%s/%s': %s cannot make it: %s", v->pool, v->name, h->name,
				     h->state != HOST(ONLINE) ? model__host_word(h->state) : "its agent is not connected; see the service gantry-agent there");
	return 0;
}

static Gantry__Job *volume_job(struct model_apply *a, Gantry__Volume *v, Gantry__JobKind kind)
{
	Gantry__Job *job = model__job_new(a, kind, NULL);
	char *name = str_printf("%s/%s", v->pool, v->name);

	pb_set_string(&job->volume, name);
	pb_set_string(&job->destination, v->host);
	v->job_id = job->id;
	a->result->job_id = job->id;
	free(name);
	return job;
}

int model__volume_create(struct model_apply *a, const Gantry__CmdVolumeCreate *c)
{
	Gantry__Volume *v;
	size_t at = 0;
	int rc = volume_check_new(a, c->volume);

	if (rc)
		return rc;
	v = pb_clone(c->volume);
	v->state = VOL(CREATING);
	pb_set_string(&v->reason, NULL);
	while (at < a->s->n_volumes) {
		int order = strcmp(a->s->volumes[at]->pool, v->pool);

		if (order > 0 || (!order && strcmp(a->s->volumes[at]->name, v->name) > 0))
			break;
		at++;
	}
	PB_INSERT(a->s, volumes, at, v);
	volume_job(a, v, KIND(VOLUME_CREATE));
	return 0;
}

/* The host that deletes it: the one that made it, or on a shared pool any other that can. */
static const Gantry__Host *volume_deleter(const struct model *m, const Gantry__Volume *v)
{
	const Gantry__Pool *p = model_pool(m, v->pool);
	const Gantry__Host *own = model_host(m, v->host);

	if (own && own->state == HOST(ONLINE) && own->agent_connected)
		return own;
	for (size_t i = 0; p && p->shared && i < m->state->n_hosts; i++)
		if (m->state->hosts[i]->state == HOST(ONLINE) && m->state->hosts[i]->agent_connected)
			return m->state->hosts[i];
	return NULL;
}

int model__volume_delete(struct model_apply *a, const Gantry__CmdVolumeDelete *c)
{
	Gantry__Volume *v = model_volume(a->m, c->pool, c->name);
	const Gantry__Host *h;

	if (!v)
		return model__refuse(a, STATUS(NO_SUCH), "no volume '%s/%s'; see 'clusterctl volume list'", c->pool, c->name);
	if (v->state != VOL(READY))
		return model__refuse(a, STATUS(RETRY), "volume '%s/%s' is being %s by task %llu", c->pool, c->name,
				     v->state == VOL(CREATING) ? "made" : "deleted", (unsigned long long)v->job_id);
	for (size_t i = 0; i < a->s->n_domains; i++) {
		const Gantry__DomainSpec *spec = a->s->domains[i]->spec;

		for (size_t k = 0; k < spec->n_disks; k++)
			if (disk_is(spec->disks[k], c->pool, c->name))
				return model__refuse(a, STATUS(CONSTRAINT), "volume '%s/%s' is disk %s of domain '%s': undefine the domain first", c->pool,
						     c->name, spec->disks[k]->vdev, spec->name);
	}
	h = volume_deleter(a->m, v);
	if (!h)
		return model__refuse(a, STATUS(RETRY), "volume '%s/%s': no host that has it is online", c->pool, c->name);
	v->state = VOL(DELETING);
	pb_set_string(&v->host, h->name);
	volume_job(a, v, KIND(VOLUME_DELETE));
	return 0;
}

static void volume_remove(struct model_apply *a, const Gantry__Volume *v)
{
	for (size_t i = 0; i < a->s->n_volumes; i++) {
		if (a->s->volumes[i] == v) {
			PB_REMOVE(a->s, volumes, i);
			return;
		}
	}
}

int model__volume_report(struct model_apply *a, const Gantry__CmdVolumeReport *c)
{
	Gantry__Volume *v = model_volume(a->m, c->pool, c->name);
	Gantry__Job *job = v ? model_job(a->m, v->job_id) : NULL;
	bool creating;

	if (!v || v->job_id != c->job_id || !job || job->state != JOB(RUNNING) || !model__is(v->host, c->host))
		return model__refuse(a, STATUS(RETRY), "volume '%s/%s': %s does nothing with it by task %llu", c->pool, c->name, c->host,
				     (unsigned long long)c->job_id);
	creating = v->state == VOL(CREATING);
	if (c->ok)
		model__event(a, INFO, "volume", job->volume, creating ? "volume-created" : "volume-deleted", "%s was %s by %s", job->volume,
			     creating ? "made" : "deleted", c->host);
	else
		model__event(a, ERROR, "volume", job->volume, "volume-failed", "%s could not be %s by %s: %s", job->volume, creating ? "made" : "deleted",
			     c->host, c->reason);
	model__job_end(a, job, c->ok ? JOB(DONE) : JOB(FAILED), c->reason);
	if (creating != c->ok) {
		/* It was deleted, or never came to be. */
		volume_remove(a, v);
		return 0;
	}
	v->state = VOL(READY);
	v->job_id = 0;
	if (creating && c->size_bytes)
		v->size_bytes = c->size_bytes;
	pb_set_string(&v->reason, c->ok ? "" : c->reason);
	return 0;
}
