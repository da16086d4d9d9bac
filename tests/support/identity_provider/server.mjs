// An OpenID Connect provider for the tests: the certified `oidc-provider`, over HTTPS.
//
//   node server.mjs CERTIFICATE KEY [PORT]
//
// Prints one line of JSON when it is ready. The issuer has the path /t1/v2.0, so that it is found
// both by OpenID Connect Discovery and where MSAL looks for the tenant `t1` of an authority.
// Everything under /control is for tests: what was asked, and how to behave from now on.

import { createHash, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import { Provider } from 'oidc-provider';

const PREFIX = '/t1/v2.0';
const RESOURCE = 'https://mail.test/';
const MAIL_SCOPES = [
  'https://mail.google.com/',
  'https://outlook.office.com/SMTP.Send',
  'https://outlook.office365.com/SMTP.Send',
  'https://outlook.office365.com/.default',
  'mail-w',
  'smtp',
].join(' ');
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';

const DEFAULTS = {
  access_token_seconds: 3600,
  identity_in: 'id_token', // or userinfo (access tokens are opaque then), or none
  email_verified: true, // null: not said
  application_mailbox: '', // the `email` of tokens that an application got for itself
  issues_refresh_tokens: true,
};

const [certificate, key, port = '0'] = process.argv.slice(2);
const settings = { ...DEFAULTS };
const counters = {};
const mailboxes = new Map(); // account id → mailbox
const grants = new Map(); // mailbox → ids of its grants

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
await new Promise((listening) => server.listen(Number(port), '127.0.0.1', listening));
const origin = `https://127.0.0.1:${server.address().port}`;
const issuer = origin + PREFIX;

const signing = generateKeyPairSync('rsa', { modulusLength: 2048 });
const signingKey = {
  ...signing.privateKey.export({ format: 'jwk' }), kid: 'tests', use: 'sig', alg: 'RS256',
};

const loopback = {
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/', 'http://localhost/'],
  grant_types: ['authorization_code', 'refresh_token', DEVICE_CODE],
  response_types: ['code'],
};
const secret = () => randomBytes(24).toString('base64url');
const clients = [
  { ...loopback, client_id: 'native', token_endpoint_auth_method: 'none' },
  {
    ...loopback,
    client_id: 'confidential',
    client_secret: secret(),
    token_endpoint_auth_method: 'client_secret_post',
  },
  {
    ...loopback,
    client_id: 'confidential-basic',
    client_secret: secret(),
    token_endpoint_auth_method: 'client_secret_basic',
  },
  {
    client_id: 'application',
    client_secret: secret(),
    token_endpoint_auth_method: 'client_secret_post',
    redirect_uris: [],
    grant_types: ['client_credentials'],
    response_types: [],
  },
];

function accountOf(mailbox) {
  const id = createHash('sha256').update(mailbox).digest('base64url').slice(0, 22);
  mailboxes.set(id, mailbox);
  return id;
}

function claimsOf(id, use) {
  if (settings.identity_in !== use) return { sub: id };
  const verified = settings.email_verified === null ? {} : { email_verified: settings.email_verified };
  return { sub: id, email: mailboxes.get(id), ...verified };
}

const provider = new Provider(issuer, {
  clients,
  jwks: { keys: [signingKey] },
  cookies: { keys: [secret()] },
  scopes: ['openid', 'offline_access', 'email', 'profile'],
  claims: { email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false, // Google and Microsoft put the address into the ID token, too
  findAccount: (ctx, id) => mailboxes.has(id)
    && { accountId: id, claims: (use) => claimsOf(id, use) },
  pkce: { required: () => true },
  extraParams: ['access_type'],
  rotateRefreshToken: true,
  // Google's way to ask is access_type=offline, everyone else's the scope offline_access; Microsoft
  // heeds it without a prompt for consent, which the library does not, so its mail scope stands in.
  issueRefreshToken: async (ctx, client, source) => {
    if (!settings.issues_refresh_tokens || !client.grantTypeAllowed('refresh_token')) return false;
    const isMicrosofts = [...source.scopes].some((scope) => scope.startsWith('https://outlook.'));
    return source.scopes.has('offline_access') || offline.has(source.grantId) || isMicrosofts;
  },
  expiresWithSession: () => false,
  extraTokenClaims: (ctx, token) => {
    const email = token.accountId ? mailboxes.get(token.accountId) : settings.application_mailbox;
    return email ? { email } : undefined;
  },
  formats: {
    customizers: { jwt: (ctx, token, jwt) => { jwt.header = { typ: 'JWT' }; } }, // for Dovecot 2.3
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => settings.identity_in !== 'userinfo',
      getResourceServerInfo: () => ({
        scope: MAIL_SCOPES,
        audience: RESOURCE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.access_token_seconds,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form) => {
        ctx.body = page('Your device', `${form}<button form="op.deviceInputForm">Continue</button>`);
      },
      userCodeConfirmSource: (ctx, form, client, device, code) => {
        ctx.body = page('Your device', `<p>${escaped(code)}</p>${form}
          <button form="op.deviceConfirmForm">Continue</button>
          <button form="op.deviceConfirmForm" name="abort" value="yes">Abort</button>`);
      },
      successSource: (ctx) => { ctx.body = page('Signed in', '<p>Back to your device.</p>'); },
    },
  },
  interactions: { url: (ctx, interaction) => `${PREFIX}/interaction/${interaction.uid}` },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = page('Error', `<p>${escaped(`${out.error}: ${out.error_description}`)}</p>`);
  },
  ttl: {
    AccessToken: () => settings.access_token_seconds,
    ClientCredentials: () => settings.access_token_seconds,
    AuthorizationCode: 60,
    DeviceCode: 600,
    Grant: 86_400,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86_400,
    Session: 86_400,
  },
});

// A native client's redirect may go to any port and, beyond RFC 8252, any path of loopback.
const redirectUriAllowed = provider.Client.prototype.redirectUriAllowed;
provider.Client.prototype.redirectUriAllowed = function allowed(uri) {
  const url = URL.parse(uri);
  const isLoopback = url?.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname);
  return isLoopback || redirectUriAllowed.call(this, uri);
};

const offline = new Set(); // grants that were asked for with access_type=offline

provider.on('grant.saved', (grant) => {
  const mailbox = mailboxes.get(grant.accountId);
  grants.set(mailbox, (grants.get(mailbox) ?? new Set()).add(grant.jti));
});
const count = (name) => { counters[name] = (counters[name] ?? 0) + 1; };
provider.on('grant.success', (ctx) => count(ctx.oidc.params.grant_type));
provider.on('grant.error', (ctx, error) => {
  count(ctx.oidc?.params?.grant_type ?? 'unknown');
  count(`error ${error.error}`);
});
provider.on('grant.revoked', () => count('grants revoked'));
provider.on('registration_create.success', () => count('clients registered'));
provider.on('server_error', (ctx, error) => console.error(error.stack));

const escaped = (text) => String(text).replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);

const page = (title, body) => `<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;

function form(action, fields, ...buttons) {
  const shown = buttons.map(([name, text]) => `<button name="answer" value="${name}">${text}</button>`);
  return `<form method="post" action="${action}">${fields}${shown.join(' ')}</form>`;
}

async function showInteraction(request, response) {
  const { uid, prompt, params } = await provider.interactionDetails(request, response);
  const action = `${PREFIX}/interaction/${uid}`;
  const hint = escaped(params.login_hint ?? '');
  const login = `<label>E-mail <input type="email" name="login" value="${hint}" required></label> `;
  return prompt.name === 'login'
    ? page('Sign in', form(action, login, ['login', 'Sign in'], ['deny', 'Cancel']))
    : page('Allow access', form(action, `<p>${escaped(params.scope)}</p>`, ['allow', 'Allow'], ['deny', 'Deny']));
}

async function finishInteraction(request, response, answers) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const finish = (result) => provider.interactionFinished(request, response, result);
  if (answers.get('answer') === 'deny') {
    return finish({ error: 'access_denied', error_description: 'The person declined' });
  }
  if (prompt.name === 'login') {
    return finish({ login: { accountId: accountOf(answers.get('login').toLowerCase()) } });
  }
  const { accountId } = session;
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope('openid offline_access email profile');
  grant.addResourceScope(RESOURCE, MAIL_SCOPES);
  const id = await grant.save();
  if (params.access_type === 'offline') offline.add(id);
  return finish({ consent: { grantId: id } });
}

async function revoke(mailbox) {
  const kinds = ['AccessToken', 'AuthorizationCode', 'DeviceCode', 'RefreshToken'];
  for (const id of grants.get(mailbox) ?? []) {
    await Promise.all(kinds.map((kind) => provider[kind].revokeByGrantId(id)));
    await (await provider.Grant.find(id))?.destroy();
  }
  grants.delete(mailbox);
}

async function control(verb, wanted) {
  switch (verb) {
    case 'reset':
      Object.keys(counters).forEach((name) => delete counters[name]);
      return Object.assign(settings, DEFAULTS);
    case 'settings': return Object.assign(settings, wanted);
    case 'counters': return counters;
    case 'revoke': return revoke(wanted.mailbox);
    default: return undefined;
  }
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// Microsoft lets a refresh name any scope; MSAL always names these, which were not all granted.
async function forgiveMsal(request) {
  const form = new URLSearchParams(await bodyOf(request));
  const scopes = (form.get('scope') ?? '').split(' ');
  if (form.get('grant_type') === 'refresh_token' && scopes.some((one) => one.startsWith('https://outlook.'))) {
    const reserved = ['openid', 'profile', 'offline_access'];
    form.set('scope', scopes.filter((one) => !reserved.includes(one)).join(' '));
  }
  request.body = form.toString();
}

const answer = provider.callback();
server.on('request', async (request, response) => {
  const { pathname } = new URL(request.url, origin);
  try {
    if (pathname.startsWith('/control/')) {
      const wanted = JSON.parse(await bodyOf(request) || '{}');
      response.end(JSON.stringify(await control(pathname.slice('/control/'.length), wanted) ?? {}));
    } else if (pathname.startsWith(`${PREFIX}/interaction/`)) {
      if (request.method === 'POST') {
        await finishInteraction(request, response, new URLSearchParams(await bodyOf(request)));
      } else {
        response.setHeader('Content-Type', 'text/html; charset=utf-8');
        response.end(await showInteraction(request, response));
      }
    } else if (pathname.startsWith(`${PREFIX}/`)) {
      request.baseUrl = PREFIX;
      request.originalUrl = request.url;
      request.url = request.url.slice(PREFIX.length);
      if (request.method === 'POST' && request.url === '/token') await forgiveMsal(request);
      await answer(request, response);
    } else {
      response.writeHead(404).end();
    }
  } catch (error) {
    response.writeHead(500).end(`${error.name}: ${error.message}`);
  }
});

process.stdin.resume().on('end', () => process.exit(0)); // it ends with whoever started it
console.log(JSON.stringify({
  issuer,
  authority: origin,
  tenant: 't1',
  resource: RESOURCE,
  clients: Object.fromEntries(clients.map((one) => [one.client_id, one.client_secret ?? ''])),
  key_id: signingKey.kid,
  public_key: createPublicKey(signing.privateKey).export({ type: 'spki', format: 'pem' }),
}));
