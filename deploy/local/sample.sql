-- What `make run` shows: one user, one project, and collections as the legacy service left them.
-- Two of them have no row in project_collections, as before phase 1. Runs any number of times, and
-- brings back what was deleted.

INSERT INTO users (
    user_id, username, email, first_name, last_name, category, role,
    institution, subject_area, how_heard_about_us, is_active
) VALUES (
    'sample-owner', 'sample-owner', 'owner@sample.example', 'Sample', 'Owner', 'academic', 'researcher',
    'Sample Institute', 'Biology', 'make run', true
) ON CONFLICT DO NOTHING;

INSERT INTO projects (project_id, project_name, owner_user_id, is_active)
VALUES ('sample-project', 'Sample project', 'sample-owner', true)
ON CONFLICT DO NOTHING;

INSERT INTO collections (
    collection_id, project_id, collection_name, description, created_by, created_at, updated_at, is_active
) VALUES
    ('sample-linked', 'sample-project', 'Linked', 'Has its row in project_collections.',
     'sample-owner', '2025-10-01T09:00:00Z', '2025-10-01T09:00:00Z', true),
    ('sample-unlinked', 'sample-project', 'Unlinked', 'Its first update gives it a row.',
     'sample-owner', '2025-10-01T09:01:00Z', '2025-10-01T09:01:00Z', true),
    ('sample-untouched', 'sample-project', 'Untouched', 'Only the backfill gives it a row.',
     'sample-owner', '2025-10-01T09:02:00Z', '2025-10-01T09:02:00Z', true),
    ('sample-unwanted', 'sample-project', 'Unwanted', 'To be deleted, and its row with it.',
     'sample-owner', '2025-10-01T09:03:00Z', '2025-10-01T09:03:00Z', true)
ON CONFLICT (collection_id) DO UPDATE SET is_active = true;

INSERT INTO project_collections (project_id, collection_id, research_context, created_at, updated_at)
SELECT project_id, collection_id, description, created_at, updated_at
FROM collections
WHERE collection_id IN ('sample-linked', 'sample-unwanted')
ON CONFLICT DO NOTHING;
