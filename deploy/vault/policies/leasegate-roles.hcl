# The role service: roles of database engines, and nothing else. One set of the rules that name a mount is made for each.

# Sees whose the mount is.
path "sys/mounts/<mount>" {
  capabilities = ["read"]
}

# Roles, cleanup roles among them.
path "<mount>/roles/*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Narrows a team's session, which has this policy and leasegate-engine, to this policy alone.
path "auth/token/create" {
  capabilities = ["update"]
  allowed_parameters = {
    "policies" = [["leasegate-roles"]]
    "no_default_policy" = [true]
  }
}

# Renews and revokes its session.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
