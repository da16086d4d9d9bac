"""The table of providers' refusals: their words, the cause and the remedy.

The first row that fits wins, so specific rows come before general ones. Entra's codes are details
of an OAuth error, and Microsoft reserves the right to change them. An example of each row is in its
test.
"""

from __future__ import annotations

from functools import partial

from xoauth2_proxy.diagnostics.advice import ASK_THE_DOCTOR, MAILBOX, SIGN_IN_AGAIN, Advice

_ENTRA = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes"


def _entra(numbers: str, cause: str, remedy: str) -> Advice:
    return Advice(
        says=(" | ".join(f"aadsts{number}" for number in numbers.split()),),
        provider="outlook",
        cause=cause,
        remedy=remedy,
        source=_ENTRA,
    )


_ENTRA_ROWS = (
    _entra(
        "700082 70008",
        "The sign-in was not used for so long (90 days, as a rule) that Microsoft ended it.",
        SIGN_IN_AGAIN,
    ),
    _entra(
        "700084",
        "The sign-in was made for a web page's script, which Microsoft ends after a day.",
        "in the app registration: Authentication, replace the platform Single-page application by "
        f"Mobile and desktop applications; then xoauth2-proxy login {MAILBOX}",
    ),
    _entra(
        "70043 50078 50089",
        "The organisation lets sign-ins last for a limited time only, and this one is over.",
        f"{SIGN_IN_AGAIN}; to make it last, exclude the mailbox from the sign-in frequency policy",
    ),
    _entra(
        "50173 50132 50133 70000 700081",
        "The sign-in was revoked: the password was changed, or somebody ended all sessions.",
        SIGN_IN_AGAIN,
    ),
    _entra(
        "50076 50079 50158 50072 50074",
        "Microsoft wants a second factor, which a person has to give.",
        SIGN_IN_AGAIN,
    ),
    _entra(
        "53000 53001 53002 53003 53004 53011 50131 50097 530035",
        "A Conditional Access policy of the organisation blocks this application.",
        "in the Microsoft Entra admin center: Monitoring & health > Sign-in logs, find the failed "
        "sign-in and the policy it names; exclude this application or mailbox, then "
        f"xoauth2-proxy login {MAILBOX}",
    ),
    _entra(
        "50105",
        "The user is not assigned to the application.",
        "in the Microsoft Entra admin center: Enterprise applications > the application > Users "
        f"and groups > Add {MAILBOX}",
    ),
    _entra(
        "50034 50020 51004 50014 16000 500208",
        "The user does not exist in this tenant, or is of another kind (personal, work or school).",
        'look at "tenant" of the account: consumers for personal accounts, else the '
        "organisation's own id",
    ),
    _entra(
        "50057",
        "The user's account is disabled.",
        "in the Microsoft Entra admin center: Users > the user > Edit properties > Account enabled",
    ),
    _entra(
        "50055 50144",
        "The user's password has expired.",
        f"change the password, then xoauth2-proxy login {MAILBOX}",
    ),
    _entra(
        "50053",
        "Microsoft has locked the account for a while, after wrong passwords or from this address.",
        "wait some minutes; if it lasts, look into the Sign-in logs of the Microsoft Entra admin "
        "center",
    ),
    _entra(
        "65001 65004 90008",
        "Nobody has consented to the application's permissions.",
        f"sign in and consent: xoauth2-proxy login {MAILBOX}; or as an administrator: app "
        "registration > API permissions > Grant admin consent",
    ),
    _entra(
        "7000222",
        "The client secret has expired.",
        "app registration > Certificates & secrets > New client secret; put its value into "
        '"client_secret" and its end into "client_secret_expires"',
    ),
    _entra(
        "7000215 70002",
        "The client secret is wrong.",
        'app registration > Certificates & secrets; "client_secret" is the secret\'s Value, not '
        "its Secret ID",
    ),
    _entra(
        "700027 50012 700030",
        "Microsoft does not know the certificate that the relay signed with.",
        "app registration > Certificates & secrets > Certificates: upload the certificate of "
        '"certificate"',
    ),
    _entra(
        "700016 700011 70001",
        "The application does not exist in this tenant, or is disabled.",
        'look at "client_id" and "tenant" of the account',
    ),
    _entra(
        "50194",
        "The application is for one tenant, and was asked for through another.",
        'set "tenant" of the account to the organisation\'s own id',
    ),
    _entra(
        "7000218",
        "The application is registered as one that keeps a secret, and none was sent.",
        'set "client_secret", or: app registration > Authentication > Allow public client flows',
    ),
    _entra(
        "700025",
        "The application is registered as a public one, and a secret was sent.",
        'remove "client_secret" from the account',
    ),
    _entra(
        "70011 28002 650057 65005 650056 500011 50001",
        "The application was not given the permission that was asked for.",
        "app registration > API permissions > Add > Office 365 Exchange Online or Microsoft Graph "
        "> SMTP.Send (for an application of its own: SMTP.SendAsApp), then Grant admin consent",
    ),
    _entra(
        "90002 50128 50059 90019 9001023 9002332",
        "There is no such tenant, or it does not serve this kind of account.",
        'look at "tenant" of the account: an id or a domain of the organisation',
    ),
    _entra(
        "900144 9002313 90014",
        "A parameter of the token request is missing or malformed.",
        'look at "client_id", "scopes" and "parameters" of the account',
    ),
    _entra(
        "54005 70019",
        "The code of the sign-in was used already, or is too old.",
        f"sign in once more: xoauth2-proxy login {MAILBOX}",
    ),
    _entra(
        "90033 90006 90012 50000 90024 50033 90055 70012 50196",
        "Microsoft's sign-in service is in trouble, or asked too often.",
        "wait; the relay tries again by itself",
    ),
)

_GMAIL = "https://support.google.com/a/answer/3726730"
_GMAIL_LIMITS = "https://support.google.com/a/answer/166852"
_GOOGLE = "https://developers.google.com/identity/protocols/oauth2"
_DELEGATION = "https://developers.google.com/identity/protocols/oauth2/service-account"

_gmail = partial(Advice, provider="gmail", source=_GMAIL)
_GMAIL_ROWS = (
    _gmail(
        says=("^534", "5.7.14"),
        cause="Google wants a person to confirm in a browser that this login is theirs.",
        remedy=f"sign in to {MAILBOX} in a browser and confirm the activity; then "
        f"xoauth2-proxy login {MAILBOX}",
    ),
    _gmail(
        says=("^534 | ^535", "5.7.9 | application specific password"),
        cause="Somebody logged in with a password, where Google wants OAuth.",
        remedy="point the mail client at this relay instead of smtp.gmail.com",
    ),
    _gmail(
        says=("^535", "5.7.8", "username and password not accepted | gsmtp | badcredentials"),
        cause="Gmail refused the token: another user's, without the scope https://mail.google.com/,"
        " or revoked.",
        remedy=SIGN_IN_AGAIN,
    ),
    _gmail(
        says=("^454", "4.7.0", "too many login attempts"),
        cause="The mailbox logs in too often; Google does not say how often it may.",
        remedy="let connections live longer (limits.max_connection_age_seconds, "
        "limits.max_messages_per_connection), and stop other programs that log in",
    ),
    _gmail(
        says=("^454", "4.7.0", "gsmtp | cannot authenticate due to temporary system problem"),
        cause="Google has a passing trouble with logins.",
        remedy="wait; the client should try again",
    ),
    _gmail(
        says=("^421", "4.7.28 | unusual rate"),
        cause="Google slows this address down: it sent unusually much, or much that was unwanted.",
        remedy='set "messages_per_minute" under "limits", and look at what is being sent',
    ),
    _gmail(
        says=("^421", "4.7.0", "try again later"),
        cause="Google turns this address away for a while: too many connections or logins.",
        remedy='lower "max_connections" under "limits"; the client should try again',
    ),
    _gmail(
        says=("^550", "5.4.5"),
        cause="The mailbox has sent as much as Google allows in 24 hours.",
        remedy="send the rest tomorrow, or from another mailbox",
        source=_GMAIL_LIMITS,
    ),
    _gmail(
        says=("^550", "5.7.1", "daily smtp relay"),
        cause="The organisation has sent as much through the SMTP relay as Google allows in a day.",
        remedy="send the rest tomorrow",
    ),
    _gmail(
        says=("^555", "5.5.2"),
        cause="Gmail could not read a command of the session, as a rule an address in it.",
        remedy="look at the sender and recipient addresses of the message",
    ),
    _gmail(
        says=("^552", "5.7.0"),
        cause="Gmail refuses messages with such an attachment.",
        remedy="send the file another way, or as a link",
    ),
)

_google = partial(Advice, provider="gmail", source=_GOOGLE)
_GOOGLE_ROWS = (
    _google(
        says=("invalid_rapt | rapt_required",),
        cause="The organisation ends sign-ins after some hours (Google Cloud session control).",
        remedy="Google Admin console > Security > Access and data control > Google Cloud session "
        f"control: exempt the application; then xoauth2-proxy login {MAILBOX}",
    ),
    _google(
        says=("admin_policy_enforced",),
        cause="The Google Workspace administrator does not allow this application.",
        remedy="Google Admin console > Security > Access and data control > API controls: trust "
        "the client id",
    ),
    _google(
        says=("org_internal",),
        cause="The application is for another organisation's users only.",
        remedy="sign in with an address of that organisation, or make the application External in "
        "the Google Cloud console",
    ),
    _google(
        says=("deleted_client | disabled_client",),
        cause="The OAuth client was deleted or disabled in the Google Cloud console.",
        remedy="make a new OAuth client, put its id and secret into the account, then "
        f"xoauth2-proxy login {MAILBOX}",
    ),
    _google(
        says=("unauthorized_client",),
        is_for_provider_alone=True,
        cause="Google does not let this client ask: domain-wide delegation is not set up for it, or"
        " the sign-in was another client's.",
        remedy="for a service account: Google Admin console > Security > Access and data control "
        "> API controls > Manage domain wide delegation, scope https://mail.google.com/; else "
        f"xoauth2-proxy login {MAILBOX}",
        source=_DELEGATION,
    ),
    _google(
        says=("invalid_grant", "invalid email or user id"),
        cause="The service account speaks for an address that is no user of the organisation.",
        remedy='look at "email" of the account: it must be a user\'s primary address',
        source=_DELEGATION,
    ),
    _google(
        says=("invalid_grant", "short lived token | iat and exp"),
        cause="This machine's clock is wrong.",
        remedy="set the clock, for example with: timedatectl set-ntp true",
        source=_DELEGATION,
    ),
    _google(
        says=("invalid_grant", "invalid jwt signature"),
        cause="The service account's key was deleted or is another account's.",
        remedy="Google Cloud console > IAM & Admin > Service accounts > Keys: make a new key for "
        '"service_account"',
        source=_DELEGATION,
    ),
    _google(
        says=("invalid_grant", "expired or revoked"),
        cause="The sign-in ended: revoked, the password was changed, unused for six months, or the "
        'application\'s publishing status is "Testing", where sign-ins last 7 days.',
        remedy="Google Cloud console > Google Auth Platform > Audience: publish the application if "
        f"it is in testing; then xoauth2-proxy login {MAILBOX}",
    ),
    _google(
        says=("invalid_grant",),
        is_for_provider_alone=True,
        cause="The sign-in is no longer valid: revoked, the password was changed, or it belongs to "
        "another client id.",
        remedy=SIGN_IN_AGAIN,
    ),
)

_LEARN = "https://learn.microsoft.com"
_SMTP_AUTH = (
    f"{_LEARN}/exchange/clients-and-mobile-in-exchange-online/authenticated-client-smtp-submission"
)
_SMTP_OAUTH = (
    f"{_LEARN}/exchange/client-developer/legacy-protocols/"
    "how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth"
)
_SMTP_ISSUES = (
    f"{_LEARN}/exchange/mail-flow-best-practices/"
    "fix-issues-with-printers-scanners-and-lob-applications-that-send-email-using-off"
)
_LIMITS = (
    f"{_LEARN}/office365/servicedescriptions/exchange-online-service-description/"
    "exchange-online-limits"
)

_exchange = partial(Advice, provider="outlook", source=_SMTP_AUTH)
_EXCHANGE_ROWS = (
    _exchange(
        says=("5.7.139", "disabled for the tenant"),
        cause="SMTP AUTH is switched off for the whole organisation.",
        remedy="in Exchange Online PowerShell, for this mailbox alone: "
        f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false; or for all: "
        "Set-TransportConfig -SmtpClientAuthenticationDisabled $false",
    ),
    _exchange(
        says=("5.7.139", "disabled for the mailbox"),
        cause="SMTP AUTH is switched off for this mailbox.",
        remedy="in Exchange Online PowerShell: "
        f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false; or in the Microsoft "
        "365 admin center: Users > Active users > the user > Mail > Manage email apps > "
        "Authenticated SMTP",
    ),
    _exchange(
        says=("5.7.139", "basic authentication is disabled"),
        cause="Somebody logged in with a password, which Microsoft no longer takes.",
        remedy="point the mail client at this relay instead of smtp.office365.com",
    ),
    _exchange(
        says=("5.7.139", "security defaults"),
        cause="The organisation's security defaults block SMTP AUTH for this user.",
        remedy="in the Microsoft Entra admin center: Overview > Properties > Manage security "
        "defaults; replace them by Conditional Access policies that leave this mailbox out",
    ),
    _exchange(
        says=("5.7.139", "conditional access | did not meet the criteria"),
        cause="A Conditional Access policy of the organisation blocks this login.",
        remedy="in the Microsoft Entra admin center: Monitoring & health > Sign-in logs, find the "
        "failed sign-in and the policy it names; exclude this mailbox or application from it",
        source="field report",
    ),
    _exchange(
        says=("5.7.139", "credentials were incorrect"),
        cause="Exchange Online does not take this token for this mailbox: another user's, or one "
        "without SMTP rights.",
        remedy=ASK_THE_DOCTOR,
        source="field report",
    ),
    _exchange(
        says=("5.7.139",),
        cause="A setting or policy of the organisation blocks SMTP AUTH for this mailbox.",
        remedy="in Exchange Online PowerShell: "
        f"Get-CASMailbox {MAILBOX} | fl SmtpClientAuthenticationDisabled; then the Sign-in logs "
        "of the Microsoft Entra admin center",
    ),
    _exchange(
        says=("^535", "5.7.3"),
        cause="Exchange Online refused the token: wrong audience (Graph instead of "
        "outlook.office.com), no SMTP permission, another user's, expired, or the mailbox has no "
        "licence.",
        remedy=f"look at the token's claims: xoauth2-proxy doctor {MAILBOX}",
        source=_SMTP_OAUTH,
    ),
    _exchange(
        says=("^550", "5.7.30"),
        cause="Microsoft has ended password logins for SMTP submission; this session used one.",
        remedy="point the mail client at this relay instead of smtp.office365.com",
        source="Microsoft message center MC786329",
    ),
    _exchange(
        says=("sendasdenied | mapiexceptionsendasdenied | 5.2.252 | 5.7.60",),
        cause="The signed-in mailbox may not send as the address in the message's From.",
        remedy="in Exchange Online PowerShell: Add-RecipientPermission <the From address> "
        f"-Trustee {MAILBOX} -AccessRights SendAs; for an application, -Trustee is its service "
        "principal",
        source=_SMTP_ISSUES,
    ),
    _exchange(
        says=("^530", "5.7.57"),
        cause="The session sent mail before it had logged in.",
        remedy="let the client log in at this relay, and point it here, not at smtp.office365.com",
        source=_SMTP_ISSUES,
    ),
    _exchange(
        says=("432 | 4.3.2", "concurrent connections limit | thread limit exceeded"),
        cause="More than three connections submit for this mailbox at one time, other programs' "
        "included.",
        remedy='lower "max_connections" under "limits" of this account, or stop the other '
        "programs that send from it",
        source=_LIMITS,
    ),
    _exchange(
        says=(
            "5.2.0",
            "submissionquotaexceededexception | submissionquotaexceeded | submission quota",
        ),
        cause="The mailbox has written to as many recipients as Microsoft allows a day (10,000).",
        remedy="send the rest tomorrow, or from another mailbox",
        source=_LIMITS,
    ),
    _exchange(
        says=("^554", "5.2.2", "storedrv | mailbox full"),
        cause="The mailbox is full: what is sent is kept in its Sent Items too.",
        remedy="empty Sent Items, or set a retention policy for it",
        source=_LIMITS,
    ),
    _exchange(
        says=("^501", "5.5.127 | token will expire soon"),
        cause="High Volume Email wants a token that is valid for ten more minutes at least.",
        remedy='set "refresh_window_seconds" of this account to 900',
        source="field report",
    ),
    _exchange(
        says=("^501", "5.5.124"),
        cause="The address used for the login is no mailbox of that server.",
        remedy='set "email" of the account to the High Volume Email account\'s own address',
        source="field report",
    ),
    _exchange(
        says=("^430", "4.2.0 | mailbox logon failure | mapiexceptionlogonfailed"),
        cause="The application logged in but may not open the mailbox; waiting does not help.",
        remedy="in Exchange Online PowerShell: New-ServicePrincipal -AppId <client id> -ObjectId "
        "<object id of the Enterprise application, not of the app registration>; then "
        f"Add-MailboxPermission {MAILBOX} -User <service principal> -AccessRights FullAccess",
        source=f"field report; {_SMTP_OAUTH}",
    ),
    _exchange(
        says=("^550", "5.1.8"),
        cause="Microsoft has blocked the mailbox from sending, as a rule for spam.",
        remedy="change the user's password, then unblock it in the Microsoft Defender portal: "
        "Email & collaboration > Review > Restricted entities",
        source=f"{_LEARN}/defender-office-365/outbound-spam-restore-restricted-users",
    ),
    _exchange(
        says=("^451", "4.7.0", "temporary server error"),
        cause="Exchange Online has a passing trouble of its own.",
        remedy="wait; the client should try again",
        source=_SMTP_ISSUES,
    ),
)

_RFC_OAUTH = "RFC 6749 §5.2"

_ANY_SMTP = (
    Advice(
        says=("#auth005 | too many bad auth attempts",),
        provider="yahoo",
        cause="Yahoo refused too many logins of this mailbox in a row and takes none for a while.",
        remedy=f"wait an hour, then {ASK_THE_DOCTOR}",
        source="field report",
    ),
    Advice(
        says=("454", "4.7.0", "the provider offers no xoauth2"),
        cause="The server does not offer XOAUTH2: it is no server for OAuth logins.",
        remedy='look at "upstream" of the account: host, port and tls',
        source="this relay",
    ),
    Advice(
        says=("^552 | ^523", "5.3.4"),
        cause="The message is larger than the provider takes.",
        remedy="send a smaller message; an attachment grows by a third on its way",
        source="RFC 1870 §6.1",
    ),
    Advice(
        says=("^452", "4.5.3"),
        cause="The message has more recipients than the provider takes at once.",
        remedy='lower "max_recipients" under "relay", so that clients divide their messages',
        source="RFC 5321 §4.5.3.1.10",
    ),
    Advice(
        says=("^535",),
        cause="The provider refused the access token.",
        remedy=ASK_THE_DOCTOR,
        source="RFC 4954 §6",
    ),
    Advice(
        says=("^454",),
        cause="The provider cannot check logins at the moment.",
        remedy="wait; the client should try again",
        source="RFC 4954 §6",
    ),
)

_any_oauth = partial(Advice, source=_RFC_OAUTH)
_ANY_OAUTH = (
    _any_oauth(
        says=("interaction_required | consent_required | login_required",),
        cause="The provider wants a person to sign in again.",
        remedy=SIGN_IN_AGAIN,
        source="OpenID Connect Core 1.0 §3.1.2.6",
    ),
    _any_oauth(
        says=("invalid_grant",),
        cause="The sign-in is no longer valid: expired, revoked, or another client's.",
        remedy=SIGN_IN_AGAIN,
    ),
    _any_oauth(
        says=("invalid_client",),
        cause="The provider does not know the client id, or its secret is wrong or has expired.",
        remedy='look at "client_id" and "client_secret" of the account',
    ),
    _any_oauth(
        says=("unauthorized_client",),
        cause="The provider does not let this client ask for tokens in this way.",
        remedy='look at "client_id" and "grant" of the account, and at the client\'s settings at '
        "the provider",
    ),
    _any_oauth(
        says=("invalid_scope | invalid_resource | invalid_target",),
        cause="The provider does not give out what was asked for.",
        remedy='look at "scopes" of the account, and at the permissions of the client at the '
        "provider",
    ),
    _any_oauth(
        says=("unsupported_grant_type | invalid_request",),
        cause="The token endpoint did not understand the request.",
        remedy='look at "oauth_token_url", "grant" and "parameters" of the account',
    ),
    _any_oauth(
        says=("temporarily_unavailable | server_error | slow_down",),
        cause="The provider's sign-in service is in trouble, or asked too often.",
        remedy="wait; the relay tries again by itself",
        source="RFC 6749 §4.1.2.1",
    ),
)

TABLE = (
    *_ENTRA_ROWS,
    *_GOOGLE_ROWS,
    *_ANY_OAUTH,
    *_EXCHANGE_ROWS,
    *_GMAIL_ROWS,
    *_ANY_SMTP,
)
