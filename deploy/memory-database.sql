-- Gives the memory service a database and a role of its own: psql -f, as a superuser, as often as you like.
\set ON_ERROR_STOP on
\set password `cat /run/secrets/memory_password`

SELECT 'CREATE ROLE memory LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'memory') \gexec
ALTER ROLE memory PASSWORD :'password';
SELECT 'CREATE DATABASE memory OWNER memory'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'memory') \gexec

-- Its role opens no other database, and no other role opens its own.
REVOKE CONNECT, TEMPORARY ON DATABASE memory, :"DBNAME" FROM PUBLIC;

-- pgvector needs a superuser.
\connect memory
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
