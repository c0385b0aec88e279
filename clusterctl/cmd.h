/* What the commands share, and the commands themselves: each is called by the table with its invocation, and returns
 * 0, a negative errno with inv->err, or the exit status. */
#pragma once

#include "clusterctl/command.h"
#include "proto/ctl.pb-c.h"

/* The whole model. Owner of *ret: caller (gantry__ctl_model__free_unpacked). */
int cmd_model(struct invocation *inv, bool events, Gantry__CtlModel **ret);
/* One question about the state; -ECONNREFUSED and the like while clusterd is not there. Owner of *ret: caller. */
int cmd_ask_status(struct ctl_client *c, Gantry__CtlStatus **ret, struct err *err);
/* For each online host what would happen if it failed now: ret[i] is of m->model->hosts[i], NULL for the others. */
int cmd_plans(struct invocation *inv, const Gantry__CtlModel *m, Gantry__CtlPlan ***ret);
void cmd_plans_free(Gantry__CtlPlan **plans, size_t n);
/* "HA is DISARMED until ..."; NULL: it is armed. Owner: caller. */
char *cmd_ha_disarmed(const Gantry__ClusterModel *m);
/* Gives the events behind *after_id (which moves on) to each(), and those that come where go_on; until each() says false, the end of what
 * there is, or deadline_ms (of ctl_now_ms(); 0: none; -ETIMEDOUT). -EINTR. A clusterd that goes away is waited for. */
int cmd_watch_events(struct invocation *inv, bool go_on, uint64_t deadline_ms, uint64_t *after_id,
		     bool (*each)(void *data, const Gantry__Event *e), void *data);
void cmd_print_event(const struct invocation *inv, const Gantry__Event *e);
/* POOL/NAME in two; -EINVAL. Owner of both: caller. */
int cmd_split_volume(struct invocation *inv, const char *text, char **ret_pool, char **ret_name);
const Gantry__HostSoft *cmd_host_soft(const Gantry__CtlModel *m, uint32_t node_id);
const Gantry__Host *cmd_host(const Gantry__CtlModel *m, const char *name);
/* The host named by the first argument; -ENOENT with the text for the user. */
int cmd_host_named(struct invocation *inv, const Gantry__CtlModel *m, const Gantry__Host **ret);
/* By name, uuid or ID. */
const Gantry__Domain *cmd_domain(const Gantry__CtlModel *m, const char *name);
/* "2026-11-21 07:30:12", local time; "-" for 0. Owner: caller. */
char *cmd_time(uint64_t ms);
/* key=value in two; -EINVAL. Owner of both: caller. */
int cmd_split_pair(struct invocation *inv, const char *text, char **ret_key, char **ret_value);
/* Reads a file of at most max bytes; "-" is stdin. */
int cmd_read_file(const char *path, size_t max, struct buf *out, struct err *err);

int cmd_cluster_init(struct invocation *inv);
int cmd_cluster_join(struct invocation *inv);
int cmd_cluster_token(struct invocation *inv);
int cmd_cluster_status(struct invocation *inv);
int cmd_cluster_set(struct invocation *inv);
int cmd_cluster_verify(struct invocation *inv);
int cmd_ha_set(struct invocation *inv);
int cmd_ha_status(struct invocation *inv);
int cmd_ha_arm(struct invocation *inv);
int cmd_ha_disarm(struct invocation *inv);
int cmd_whatif_fail(struct invocation *inv);
int cmd_host_list(struct invocation *inv);
int cmd_host_show(struct invocation *inv);
int cmd_host_remove(struct invocation *inv);
int cmd_create(struct invocation *inv);
int cmd_start(struct invocation *inv);
int cmd_undefine(struct invocation *inv);
int cmd_list(struct invocation *inv);
int cmd_show(struct invocation *inv);
int cmd_console(struct invocation *inv);
int cmd_shutdown(struct invocation *inv);
int cmd_destroy(struct invocation *inv);
int cmd_pause(struct invocation *inv);
int cmd_unpause(struct invocation *inv);
int cmd_migrate(struct invocation *inv);
int cmd_vol_create(struct invocation *inv);
int cmd_vol_list(struct invocation *inv);
int cmd_vol_delete(struct invocation *inv);
int cmd_pool_add(struct invocation *inv);
int cmd_pool_list(struct invocation *inv);
int cmd_pool_delete(struct invocation *inv);
int cmd_fence_list(struct invocation *inv);
int cmd_fence_set(struct invocation *inv);
int cmd_fence_remove(struct invocation *inv);
int cmd_fence_test(struct invocation *inv);
int cmd_fence_run(struct invocation *inv);
int cmd_fence_confirm(struct invocation *inv);
int cmd_fence_history(struct invocation *inv);
int cmd_events(struct invocation *inv);
int cmd_task_list(struct invocation *inv);
int cmd_task_watch(struct invocation *inv);
int cmd_task_cancel(struct invocation *inv);
int cmd_help(struct invocation *inv);
int cmd_completion(struct invocation *inv);
int cmd_version(struct invocation *inv);
