-- A database as the first release wrote it (schema version 1), with invented rows.
PRAGMA journal_mode=WAL;
BEGIN TRANSACTION;
CREATE TABLE boots (
	device VARCHAR(80) NOT NULL, 
	boot_id VARCHAR(80) NOT NULL, 
	first_seen FLOAT NOT NULL, 
	PRIMARY KEY (device, boot_id)
);
INSERT INTO "boots" VALUES('bed-01','bed-01-boot',1700000000.0);
INSERT INTO "boots" VALUES('bed-02','bed-02-boot',1700000000.0);
CREATE TABLE commands (
	id VARCHAR(64) NOT NULL, 
	device VARCHAR(80) NOT NULL, 
	type VARCHAR(32) NOT NULL, 
	body TEXT NOT NULL, 
	issued_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	status VARCHAR(16), 
	reason TEXT, 
	detail TEXT, 
	answered_at FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "commands" VALUES('c1','bed-01','report','{"type":"report"}',1700000000.0,1700000060.0,'done',NULL,'{}',1700000001.0);
CREATE TABLE devices (
	name VARCHAR(80) NOT NULL, 
	reported VARCHAR(16), 
	reported_at FLOAT, 
	boot BIGINT, 
	connection BIGINT, 
	seq BIGINT, 
	boot_id VARCHAR(80), 
	client_version VARCHAR(80), 
	model_version BIGINT, 
	first_heard FLOAT, 
	last_heard FLOAT, 
	online_since FLOAT, 
	interval_s FLOAT, 
	PRIMARY KEY (name)
);
INSERT INTO "devices" VALUES('bed-01','online',1700000000.0,1,1,1,'bed-01-boot','0.1.0',3,1700000000.0,1700000900.0,1700000000.0,30.0);
INSERT INTO "devices" VALUES('bed-02','online',1700000000.0,1,1,1,'bed-02-boot','0.1.0',3,1700000000.0,1700000900.0,1700000000.0,30.0);
CREATE TABLE latest (
	device VARCHAR(80) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	boot BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	received_at FLOAT NOT NULL, 
	sent_at FLOAT NOT NULL, 
	synced BOOLEAN NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (device, kind)
);
INSERT INTO "latest" VALUES('bed-01','assessment',1,12,1700000300.0,1700000299.0,1,'{"type":"assessment","observed_at":"2023-11-14T22:18:00Z","news2":{"total":null,"low":8,"high":11,"band":"high","points":{"heart_rate":3,"spo2":3,"respiratory_rate":2},"missing":["consciousness"]},"rule_severity":3,"rule_severity_possible":3,"severity":3,"disagreement":false,"model":null,"missing":["consciousness"],"stale":[],"reading_age_s":2.0,"signs":null,"artefacts":{},"due":[],"next_due_at":null,"deterioration":null}');
INSERT INTO "latest" VALUES('bed-01','alert',1,9,1700000160.0,1700000159.0,1,'{"type":"alert","alert_id":"a-1","state":"escalated","severity":3,"observed_at":"2023-11-14T22:15:30Z","news2_low":8,"news2_high":11,"possible":3}');
INSERT INTO "latest" VALUES('bed-02','alert',2,1,1700000900.0,1700000899.0,1,'{"type":"alert","alert_id":"a-2","state":"cleared","severity":1,"observed_at":"2023-11-14T22:15:50Z","news2_low":3,"news2_high":3,"possible":null}');
CREATE TABLE lease (
	name VARCHAR(16) NOT NULL, 
	run VARCHAR(64) NOT NULL, 
	taken_at FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "lease" VALUES('run','r1',1700000000.0);
CREATE TABLE messages (
	device VARCHAR(80) NOT NULL, 
	id VARCHAR(64) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	boot BIGINT NOT NULL, 
	seq BIGINT NOT NULL, 
	received_at FLOAT NOT NULL, 
	sent_at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (device, id)
);
INSERT INTO "messages" VALUES('bed-01','m1','alert',1,5,1700000100.0,1700000099.0,'{"type":"alert","alert_id":"a-1","state":"raised","severity":2,"observed_at":"2023-11-14T22:15:00Z","news2_low":5,"news2_high":9,"possible":3}');
INSERT INTO "messages" VALUES('bed-01','m2','alert',1,9,1700000160.0,1700000159.0,'{"type":"alert","alert_id":"a-1","state":"escalated","severity":3,"observed_at":"2023-11-14T22:15:30Z","news2_low":8,"news2_high":11,"possible":3}');
INSERT INTO "messages" VALUES('bed-02','m3','alert',1,4,1700000200.0,1700000199.0,'{"type":"alert","alert_id":"a-2","state":"raised","severity":2,"observed_at":"2023-11-14T22:15:05Z","news2_low":5,"news2_high":5,"possible":3}');
INSERT INTO "messages" VALUES('bed-02','m4','alert',1,6,1700000260.0,1700000259.0,'{"type":"alert","alert_id":"a-2","state":"escalated","severity":3,"observed_at":"2023-11-14T22:15:20Z","news2_low":7,"news2_high":7,"possible":3}');
INSERT INTO "messages" VALUES('bed-02','m5','alert',2,1,1700000900.0,1700000899.0,'{"type":"alert","alert_id":"a-2","state":"cleared","severity":1,"observed_at":"2023-11-14T22:15:50Z","news2_low":3,"news2_high":3,"possible":null}');
INSERT INTO "messages" VALUES('bed-01','m6','assessment',1,12,1700000300.0,1700000299.0,'{"type":"assessment","observed_at":"2023-11-14T22:18:00Z","news2":{"total":null,"low":8,"high":11,"band":"high","points":{"heart_rate":3,"spo2":3,"respiratory_rate":2},"missing":["consciousness"]},"rule_severity":3,"rule_severity_possible":3,"severity":3,"disagreement":false,"model":null,"missing":["consciousness"],"stale":[],"reading_age_s":2.0,"signs":null,"artefacts":{},"due":[],"next_due_at":null,"deterioration":null}');
CREATE TABLE meta (
	"key" VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('instance','"0a1b2c3d"');
INSERT INTO "meta" VALUES('boot','1');
CREATE TABLE participants (
	run VARCHAR(64) NOT NULL, 
	device VARCHAR(80) NOT NULL, 
	command VARCHAR(64) NOT NULL, 
	admitted BOOLEAN NOT NULL, 
	told BOOLEAN NOT NULL, 
	PRIMARY KEY (run, device)
);
INSERT INTO "participants" VALUES('r1','bed-01','c2',1,1);
CREATE TABLE rounds (
	run VARCHAR(64) NOT NULL, 
	round INTEGER NOT NULL, 
	started_at FLOAT NOT NULL, 
	updated_at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (run, round)
);
INSERT INTO "rounds" VALUES('r1',1,1700000000.0,1700000020.0,'{"round":1}');
CREATE TABLE runs (
	id VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	spec TEXT NOT NULL, 
	graph_sha256 VARCHAR(64) NOT NULL, 
	start_version BIGINT NOT NULL, 
	created_at FLOAT NOT NULL, 
	quorum_at FLOAT, 
	handed_over_at FLOAT, 
	ordered_at FLOAT, 
	stop_requested_at FLOAT, 
	updated_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	status TEXT, 
	model_version BIGINT, 
	released BOOLEAN NOT NULL, 
	reason TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('r1','done','{"model":"severity","rounds":2,"quorum":1}','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',3,1700000000.0,NULL,NULL,NULL,NULL,1700000050.0,1700000050.0,NULL,4,1,NULL);
CREATE INDEX messages_by_kind ON messages (kind, received_at);
CREATE INDEX ix_commands_device ON commands (device);
COMMIT;
