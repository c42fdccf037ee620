BEGIN TRANSACTION;
CREATE TABLE acknowledgements (
	id INTEGER NOT NULL, 
	incident TEXT NOT NULL, 
	who TEXT NOT NULL, 
	why TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	reopen_if_worse_than DOUBLE, 
	withdrawn_at DATETIME, 
	withdrawn_by TEXT, 
	CONSTRAINT pk_acknowledgements PRIMARY KEY (id)
);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006');
CREATE TABLE alerts (
	id INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	target TEXT NOT NULL, 
	keys TEXT NOT NULL, 
	summary TEXT NOT NULL, 
	facts TEXT NOT NULL, 
	told BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_alerts PRIMARY KEY (id)
);
CREATE TABLE benchmark_sequences (
	benchmark_set_id INTEGER NOT NULL, 
	sequence_index INTEGER NOT NULL, 
	sequence_id TEXT NOT NULL, 
	residues TEXT NOT NULL, 
	CONSTRAINT pk_benchmark_sequences PRIMARY KEY (benchmark_set_id, sequence_index), 
	CONSTRAINT fk_benchmark_sequences_benchmark_set_id_benchmark_sets FOREIGN KEY(benchmark_set_id) REFERENCES benchmark_sets (id) ON DELETE CASCADE, 
	CONSTRAINT uq_benchmark_sequences_benchmark_set_id_sequence_id UNIQUE (benchmark_set_id, sequence_id)
)
 WITHOUT ROWID

;
INSERT INTO "benchmark_sequences" VALUES(1,0,'short_1','MKTAYIAK');
INSERT INTO "benchmark_sequences" VALUES(1,1,'short_2','VLSPADKTNV');
INSERT INTO "benchmark_sequences" VALUES(1,2,'short_3','MVHLT');
CREATE TABLE benchmark_sets (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	description TEXT NOT NULL, 
	CONSTRAINT pk_benchmark_sets PRIMARY KEY (id), 
	CONSTRAINT uq_benchmark_sets_name_version UNIQUE (name, version)
);
INSERT INTO "benchmark_sets" VALUES(1,'seed',1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','three sequences');
CREATE TABLE bisect_steps (
	bisection_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	"commit" TEXT NOT NULL, 
	run_id INTEGER, 
	verdict TEXT NOT NULL, 
	reused BOOLEAN NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_bisect_steps PRIMARY KEY (bisection_id, step), 
	CONSTRAINT fk_bisect_steps_bisection_id_bisections FOREIGN KEY(bisection_id) REFERENCES bisections (id) ON DELETE CASCADE, 
	CONSTRAINT fk_bisect_steps_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE SET NULL
);
CREATE TABLE bisections (
	id INTEGER NOT NULL, 
	target_id INTEGER NOT NULL, 
	good TEXT NOT NULL, 
	bad TEXT NOT NULL, 
	benchmark TEXT NOT NULL, 
	gate TEXT, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	first_bad TEXT, 
	conclusion TEXT NOT NULL, 
	CONSTRAINT pk_bisections PRIMARY KEY (id), 
	CONSTRAINT fk_bisections_target_id_targets FOREIGN KEY(target_id) REFERENCES targets (id) ON DELETE CASCADE
);
CREATE TABLE chain_links (
	target_id INTEGER NOT NULL, 
	benchmark_set_id INTEGER NOT NULL, 
	configuration_id INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	chain TEXT NOT NULL, 
	removed_at DATETIME, 
	CONSTRAINT pk_chain_links PRIMARY KEY (target_id, benchmark_set_id, configuration_id, place), 
	CONSTRAINT fk_chain_links_target_id_targets FOREIGN KEY(target_id) REFERENCES targets (id) ON DELETE CASCADE, 
	CONSTRAINT fk_chain_links_benchmark_set_id_benchmark_sets FOREIGN KEY(benchmark_set_id) REFERENCES benchmark_sets (id), 
	CONSTRAINT fk_chain_links_configuration_id_configurations FOREIGN KEY(configuration_id) REFERENCES configurations (id)
)
 WITHOUT ROWID

;
INSERT INTO "chain_links" VALUES(1,1,1,0,1,'60269ef60d42ed2049680ca0167ed9de8e0d9b9531c399b6a0b039165447f7ad','9e4c9313ea54ab5886e784cf32b53eb1d1fe70a4e19a72083a6149d7ab3359e1',NULL);
INSERT INTO "chain_links" VALUES(1,1,1,1,2,'e9b014385147b917966bba34db1694f3bd454149862ab4765fc30ce62953c767','e06147f0a3657d0492a88ba7ae9730e34ed8f4140201aaa39cad1f7068f80165',NULL);
INSERT INTO "chain_links" VALUES(1,1,1,2,3,'f7601e13851fd769395716bc1564664a2aae915fbe73f79c3eac4c42cd97d144','e5908afd5f7eb02f68240df985cf2029054910ae35198353ef44ad73930ddd1e',NULL);
CREATE TABLE commits (
	id INTEGER NOT NULL, 
	target_id INTEGER NOT NULL, 
	hash TEXT NOT NULL, 
	parents TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	author TEXT NOT NULL, 
	authored_at DATETIME, 
	committed_at DATETIME, 
	position INTEGER, 
	on_branch BOOLEAN NOT NULL, former_position INTEGER, left_at DATETIME, 
	CONSTRAINT pk_commits PRIMARY KEY (id), 
	CONSTRAINT fk_commits_target_id_targets FOREIGN KEY(target_id) REFERENCES targets (id) ON DELETE CASCADE, 
	CONSTRAINT uq_commits_target_id_hash UNIQUE (target_id, hash)
);
INSERT INTO "commits" VALUES(1,1,'0001000000000000000000000000000000000000','["0000000000000000000000000000000000000000"]','Change number 1','A Tester','2026-03-02 12:00:00.123456','2026-03-02 13:00:00.123456',1,1,NULL,NULL);
INSERT INTO "commits" VALUES(2,1,'0000000000000000000000000000000000000000','[]','Change number 0','A Tester','2026-03-01 12:00:00.123456','2026-03-01 13:00:00.123456',0,1,NULL,NULL);
CREATE TABLE configurations (
	id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	model TEXT NOT NULL, 
	weights TEXT NOT NULL, 
	weights_digest TEXT NOT NULL, 
	dtype TEXT NOT NULL, 
	device TEXT NOT NULL, 
	backend TEXT NOT NULL, 
	token_budget INTEGER NOT NULL, 
	CONSTRAINT pk_configurations PRIMARY KEY (id), 
	CONSTRAINT uq_configurations_digest UNIQUE (digest)
);
INSERT INTO "configurations" VALUES(1,'a24685ff010ea4db137846babac56db92ea4526ead4882f3df84f68fb2d0ca9e','esm2_t6_8M_UR50D','synthetic','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','float32','cpu','sdpa',4096);
CREATE TABLE deliveries (
	id INTEGER NOT NULL, 
	alert_id INTEGER NOT NULL, 
	channel TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	due_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	problem TEXT NOT NULL, 
	CONSTRAINT pk_deliveries PRIMARY KEY (id), 
	CONSTRAINT fk_deliveries_alert_id_alerts FOREIGN KEY(alert_id) REFERENCES alerts (id) ON DELETE CASCADE, 
	CONSTRAINT uq_deliveries_alert_id_channel UNIQUE (alert_id, channel)
);
CREATE TABLE documents (
	run_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	content TEXT NOT NULL, 
	CONSTRAINT pk_documents PRIMARY KEY (run_id, name), 
	CONSTRAINT fk_documents_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "documents" VALUES(2,'probes','{"leak":0.0}');
CREATE TABLE environments (
	id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	host TEXT NOT NULL, 
	platform TEXT NOT NULL, 
	python TEXT NOT NULL, 
	torch TEXT NOT NULL, 
	cuda TEXT, 
	gpu TEXT, 
	driver TEXT, 
	flash_attn TEXT, 
	fair_esm TEXT, packages TEXT, parts TEXT, 
	CONSTRAINT pk_environments PRIMARY KEY (id), 
	CONSTRAINT uq_environments_digest UNIQUE (digest)
);
INSERT INTO "environments" VALUES(1,'38ca3857a104f0934dd24295a667fab0b6896d2ca957dafc5e3117f01fcb303f','runner-1','Linux','3.11.9','2.13.0',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE failures (
	run_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	message TEXT NOT NULL, 
	traceback TEXT NOT NULL, 
	log TEXT NOT NULL, 
	CONSTRAINT pk_failures PRIMARY KEY (run_id), 
	CONSTRAINT fk_failures_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "failures" VALUES(1,'import','No module named ''sample''','','');
CREATE TABLE heartbeats (
	host TEXT NOT NULL, 
	target TEXT NOT NULL, 
	state TEXT NOT NULL, 
	message TEXT NOT NULL, 
	at DATETIME NOT NULL, 
	num_queued INTEGER, 
	exit_code INTEGER, 
	finished_at DATETIME, cluster TEXT, 
	CONSTRAINT pk_heartbeats PRIMARY KEY (host, target)
);
INSERT INTO "heartbeats" VALUES('runner-1','sample','idle','','2026-03-01 14:00:00.123456',NULL,NULL,NULL,NULL);
CREATE TABLE judgements (
	run_id INTEGER NOT NULL, 
	protocol_id INTEGER NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	culprit VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	figures TEXT NOT NULL, 
	gates TEXT NOT NULL, 
	judged_at DATETIME NOT NULL, 
	CONSTRAINT pk_judgements PRIMARY KEY (run_id, protocol_id), 
	CONSTRAINT fk_judgements_protocol_id_protocols FOREIGN KEY(protocol_id) REFERENCES protocols (id), 
	CONSTRAINT fk_judgements_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE leases (
	name TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	acquired_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
CREATE TABLE policies (
	id INTEGER NOT NULL, 
	target_id INTEGER NOT NULL, 
	gate TEXT NOT NULL, 
	who TEXT NOT NULL, 
	why TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	withdrawn_at DATETIME, 
	withdrawn_by TEXT, 
	CONSTRAINT pk_policies PRIMARY KEY (id), 
	CONSTRAINT fk_policies_target_id_targets FOREIGN KEY(target_id) REFERENCES targets (id) ON DELETE CASCADE
);
CREATE TABLE protocols (
	id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	version TEXT NOT NULL, 
	content TEXT NOT NULL, 
	CONSTRAINT pk_protocols PRIMARY KEY (id), 
	CONSTRAINT uq_protocols_digest UNIQUE (digest)
);
INSERT INTO "protocols" VALUES(1,'e73777d584baadda1d78eecafd1f5fe619697fc3cedf7399e2c3b2e07bbb1a64','1','{"thresholds":{"strict":0.999,"lenient":0.995,"lenient_fraction":0.01}}');
CREATE TABLE "runs" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	target_id INTEGER NOT NULL, 
	commit_id INTEGER NOT NULL, 
	benchmark_set_id INTEGER NOT NULL, 
	configuration_id INTEGER NOT NULL, 
	environment_id INTEGER, 
	protocol_id INTEGER NOT NULL, 
	superseded BOOLEAN DEFAULT 0 NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	culprit VARCHAR(16), 
	reason TEXT NOT NULL, 
	gates TEXT NOT NULL, 
	inherited_from TEXT, 
	inherited_outcome VARCHAR(16), 
	code_digest TEXT, 
	bridge BOOLEAN NOT NULL, 
	started_at DATETIME NOT NULL, 
	duration_s DOUBLE NOT NULL, 
	num_results INTEGER NOT NULL, 
	num_sequences INTEGER, 
	num_tokens INTEGER, 
	num_strict INTEGER, 
	num_failed INTEGER, 
	strict_pass_rate DOUBLE, 
	min_similarity DOUBLE, 
	p01_similarity DOUBLE, 
	median_similarity DOUBLE, 
	max_similarity DOUBLE, 
	worst_sequence TEXT, 
	seed_passed BOOLEAN, 
	max_packed_relative_l2 DOUBLE, 
	max_unpacked_relative_l2 DOUBLE, 
	unpacked_s DOUBLE, 
	packed_s DOUBLE, 
	inherited_run_id INTEGER, 
	packed_outcome VARCHAR(16), 
	unpacked_outcome VARCHAR(16), 
	digest TEXT, 
	CONSTRAINT fk_runs_benchmark_set_id_benchmark_sets FOREIGN KEY(benchmark_set_id) REFERENCES benchmark_sets (id), 
	CONSTRAINT fk_runs_protocol_id_protocols FOREIGN KEY(protocol_id) REFERENCES protocols (id), 
	CONSTRAINT fk_runs_configuration_id_configurations FOREIGN KEY(configuration_id) REFERENCES configurations (id), 
	CONSTRAINT fk_runs_target_id_targets FOREIGN KEY(target_id) REFERENCES targets (id) ON DELETE CASCADE, 
	CONSTRAINT fk_runs_commit_id_commits FOREIGN KEY(commit_id) REFERENCES commits (id) ON DELETE CASCADE, 
	CONSTRAINT fk_runs_environment_id_environments FOREIGN KEY(environment_id) REFERENCES environments (id), 
	CONSTRAINT fk_runs_inherited_run_id_runs FOREIGN KEY(inherited_run_id) REFERENCES runs (id) ON DELETE SET NULL
);
INSERT INTO "runs" VALUES(1,1,1,1,1,1,1,1,'passed','none','All agree.','[["seed",true,1e-05,0.001,"1 - cos",null,"The seed''s rule."],["leak",null,null,0.0,"abs",null,""]]',NULL,NULL,'code-1',0,'2026-03-02 14:00:00.123456',1.5,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'60269ef60d42ed2049680ca0167ed9de8e0d9b9531c399b6a0b039165447f7ad');
INSERT INTO "runs" VALUES(2,1,2,1,1,1,1,0,'passed','none','All agree.','[["seed",true,1e-05,0.001,"1 - cos",null,"The seed''s rule."],["leak",null,null,0.0,"abs",null,""]]',NULL,NULL,'code-0',0,'2026-03-01 14:00:00.123456',1.5,3,3,29,3,0,1.0,0.99999,0.99999,0.9999999999999,1.0,'short_1',1,NULL,NULL,NULL,0.25,NULL,NULL,NULL,'e9b014385147b917966bba34db1694f3bd454149862ab4765fc30ce62953c767');
INSERT INTO "runs" VALUES(3,1,1,1,1,1,1,0,'failed','packed','short_1 differs.','[["seed",false,1e-05,0.001,"1 - cos","packed","The seed''s rule."],["leak",null,null,0.0,"abs",null,""]]',NULL,NULL,'code-1',0,'2026-03-02 14:00:00.123456',1.5,3,3,29,1,2,3.33333333333333314829e-01,0.9,0.9,1.0,1.0,'short_1',0,NULL,NULL,NULL,0.25,NULL,NULL,NULL,'f7601e13851fd769395716bc1564664a2aae915fbe73f79c3eac4c42cd97d144');
CREATE TABLE sequence_results (
	run_id INTEGER NOT NULL, 
	sequence_index INTEGER NOT NULL, 
	length INTEGER NOT NULL, 
	truncated BOOLEAN NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	similarity DOUBLE, 
	packed_similarity DOUBLE, 
	unpacked_similarity DOUBLE, 
	relative_l2 DOUBLE, 
	packed_relative_l2 DOUBLE, 
	unpacked_relative_l2 DOUBLE, 
	gain DOUBLE, 
	worst_residue_similarity DOUBLE, 
	p01_residue_similarity DOUBLE, 
	worst_residue INTEGER, 
	max_abs_difference DOUBLE, 
	pack INTEGER, 
	slot INTEGER, 
	"offset" INTEGER, 
	CONSTRAINT pk_sequence_results PRIMARY KEY (run_id, sequence_index), 
	CONSTRAINT fk_sequence_results_run_id_runs FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "sequence_results" VALUES(2,0,8,0,'ok',0.99999,0.99999,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,0,0);
INSERT INTO "sequence_results" VALUES(2,1,10,0,'ok',1.0,1.0,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,1,12);
INSERT INTO "sequence_results" VALUES(2,2,5,0,'ok',0.9999999999999,0.9999999999999,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,2,24);
INSERT INTO "sequence_results" VALUES(3,0,8,0,'ok',0.9,0.9,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,0,0);
INSERT INTO "sequence_results" VALUES(3,1,10,0,'ok',1.0,1.0,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,1,12);
INSERT INTO "sequence_results" VALUES(3,2,5,0,'ok',NULL,NULL,NULL,1.0e-07,NULL,NULL,1.0,NULL,NULL,2,NULL,0,2,24);
CREATE TABLE targets (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	location TEXT NOT NULL, 
	adapter TEXT NOT NULL, 
	package TEXT, 
	paths TEXT NOT NULL, 
	branch TEXT, 
	requirements TEXT, 
	CONSTRAINT pk_targets PRIMARY KEY (id), 
	CONSTRAINT uq_targets_name UNIQUE (name)
);
INSERT INTO "targets" VALUES(1,'sample','https://example.org/sample.git','seed-interface','sample','["sample/models","sample/data"]','main',NULL);
CREATE INDEX ix_acknowledgements_incident ON acknowledgements (incident);
CREATE INDEX ix_bisections_target_id ON bisections (target_id);
CREATE INDEX ix_commits_hash ON commits (hash);
CREATE INDEX ix_commits_target_id_position_committed_at ON commits (target_id, position, committed_at);
CREATE INDEX ix_bisect_steps_run_id ON bisect_steps (run_id);
CREATE INDEX ix_failures_kind ON failures (kind);
CREATE UNIQUE INDEX uq_runs_current ON runs (commit_id, benchmark_set_id, configuration_id) WHERE superseded = 0;
CREATE INDEX ix_runs_target_id_code_digest ON runs (target_id, code_digest);
CREATE INDEX ix_runs_started_at ON runs (started_at, configuration_id, duration_s, num_results);
CREATE INDEX ix_runs_configuration_id_environment_id ON runs (configuration_id, environment_id);
CREATE INDEX ix_runs_series ON runs (target_id, superseded, benchmark_set_id, configuration_id, commit_id, outcome, inherited_outcome);
CREATE INDEX ix_runs_commit_id ON runs (commit_id);
CREATE INDEX ix_runs_inherited_run_id ON runs (inherited_run_id);
CREATE INDEX ix_runs_waiting ON runs (inherited_from) WHERE inherited_from IS NOT NULL AND inherited_run_id IS NULL;
CREATE UNIQUE INDEX ix_chain_links_run_id ON chain_links (run_id);
CREATE INDEX ix_alerts_target ON alerts (target);
CREATE INDEX ix_policies_target_id ON policies (target_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',3);
COMMIT;
